"""The engines that want an environment of their own, where one of them is installed; run there by hand."""

from __future__ import annotations

import pytest

from testbed.engines.conformance import conformance_table, engine_names, engines

OTHERS = [name for name in engine_names() if name not in ("trl", "verl")]
INSTALLED = [name for name in OTHERS if engines[name].installed]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_loss_agrees_or_differs_as_explained(name):
    table = conformance_table(name)
    unexpected = table[~table["as_expected"].fillna(True)]
    assert unexpected[["objective", "setting", "differs"]].to_dict("records") == []


@pytest.mark.parametrize("name", OTHERS)
def test_no_two_rows_compare_the_same(name):
    pairs = [(item.objective, item.setting) for item in engines[name].comparisons]
    assert len(set(pairs)) == len(pairs)
    for item in engines[name].comparisons:
        assert not item.because.endswith(".")
