from __future__ import annotations

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import UnknownNameError
from testbed.reductions import reduction_names, reductions

# Two responses of 3 and 1 tokens and an empty one: losses 1, 2, 3 and 10.
LOSS = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])


def batch(mask=MASK, **counts):
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return TokenBatch(log_probs=zeros, old_log_probs=zeros, advantages=zeros, mask=mask, **counts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token_mean", 16 / 4),
        # The empty response counts neither above nor below.
        ("seq_mean_token_mean", (2 + 10) / 2),
        ("seq_mean_token_sum", (6 + 10) / 2),
        ("seq_mean_token_sum_norm", 16 / (2 * 5)),
        ("seq_sum_token_mean", 2 + 10),
    ],
)
def test_value_by_hand(name, expected):
    assert reductions[name](LOSS, batch(), 5).item() == pytest.approx(expected, rel=1e-15)


def test_every_reduction_has_a_hand_derived_value():
    assert reduction_names() == [
        "seq_mean_token_mean",
        "seq_mean_token_sum",
        "seq_mean_token_sum_norm",
        "seq_sum_token_mean",
        "token_mean",
    ]


@pytest.mark.parametrize("name", reduction_names())
def test_micro_batches_with_global_counts_sum_to_the_whole(name):
    whole = reductions[name](LOSS, batch(), 5)
    parts = sum(
        reductions[name](LOSS[i : i + 1], batch(MASK[i : i + 1], token_count=4, sequence_count=2), 5) for i in range(3)
    )
    assert parts.item() == pytest.approx(whole.item(), rel=1e-15)


@pytest.mark.parametrize("name", reduction_names())
def test_replicas_are_reduced_one_by_one(name):
    both = reductions[name](torch.stack([LOSS, 2 * LOSS]), batch(torch.stack([MASK, MASK])), 5)
    alone = reductions[name](LOSS, batch(), 5).item()
    assert both.tolist() == pytest.approx([alone, 2 * alone], rel=1e-15)


def test_unknown_name_is_explained():
    with pytest.raises(UnknownNameError, match=r"unknown reduction 'token_meen'; did you mean 'token_mean'\?"):
        reductions["token_meen"]
