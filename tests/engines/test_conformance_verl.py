"""verl's own loss functions beside ours, where the engine is installed."""

from __future__ import annotations

import pytest

from testbed.engines.conformance import AGREEMENT, _random_batches, conformance_table, engines
from tests.extras import needs

needs("verl")


@pytest.fixture(scope="module")
def table():
    return conformance_table("verl")


def test_every_loss_agrees_or_differs_as_explained(table):
    unexpected = table[~table["as_expected"].fillna(True)]
    assert unexpected[["objective", "setting", "differs"]].to_dict("records") == []


def test_where_the_mathematics_is_the_same_it_is_to_nine_digits(table):
    agreeing = table[(table["differs"] == "") & (table["setting"] != "absent")]
    assert len(agreeing) >= 10
    assert agreeing[["loss", "gradient"]].max().max() <= AGREEMENT


def test_every_difference_has_a_reason_and_a_smallest_input(table):
    for text in table.loc[table["differs"] != "", "differs"]:
        assert "; smallest: ratio" in text


def test_no_comparison_is_vacuous():
    # A zero gradient on both sides would agree with anything.
    for comparison in engines["verl"].comparisons:
        gradients = []
        for batch in _random_batches(0):
            comparison.loss(batch).backward(inputs=[leaf := batch.log_probs])
            gradients.append(float(leaf.grad.abs().sum()))
        assert max(gradients) > 0, comparison.setting


@pytest.mark.parametrize("seed", [1, 2])
def test_other_batches_say_the_same(table, seed):
    other = conformance_table("verl", seed=seed)
    assert other["as_expected"].equals(table["as_expected"])
