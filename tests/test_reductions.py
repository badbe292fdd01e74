from __future__ import annotations

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import BatchError, ConfigError, UnknownNameError
from testbed.reductions import reduction_names, reductions, token_weights

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


@pytest.mark.parametrize("name", reduction_names())
def test_closed_form_weights_are_the_derivative_of_the_reduction(name):
    loss = LOSS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(reductions[name](loss, batch(), 5), loss)
    torch.testing.assert_close(token_weights(MASK, name, max_length=5), expected * MASK, rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", reduction_names())
@pytest.mark.parametrize("accumulation", ["mean", "sum"])
def test_weights_of_micro_batches_are_those_of_their_losses(name, accumulation):
    # Parts of two responses and of one, the empty one in a part of its own left out of the count.
    mask = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    loss = LOSS.clone().requires_grad_()
    parts = [slice(0, 2), slice(2, 3)]
    total = sum(reductions[name](loss[rows], batch(mask[rows]), 5) for rows in parts)
    (expected,) = torch.autograd.grad(total / 2 if accumulation == "mean" else total, loss)
    found = token_weights(mask, name, max_length=5, parts=[2, 1], accumulation=accumulation)
    torch.testing.assert_close(found, expected * mask, rtol=1e-15, atol=0)


def test_global_counts_make_micro_batches_invisible():
    for name in reduction_names():
        assert torch.equal(token_weights(MASK, name, parts=[1, 2]), token_weights(MASK, name))


def test_weights_by_hand():
    # token_mean in parts of 4 and 0 tokens, averaged: 1/4 each, halved; the empty part has no weight.
    assert token_weights(MASK, "token_mean", parts=[2, 1], accumulation="mean").sum().item() == 0.5
    # Without a constant L is the width: 1/(2·3).
    assert token_weights(MASK, "seq_mean_token_sum_norm")[0, 0].item() == pytest.approx(1 / 6, rel=1e-15)


def test_weights_of_replicas():
    assert token_weights(torch.stack([MASK, MASK]), "token_mean")[1].sum().item() == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"reduction": "mean"}, UnknownNameError, "unknown reduction 'mean'"),
        ({"parts": [2, 2]}, BatchError, r"parts \[2, 2\] are 4 responses; the mask has 3"),
        ({"parts": [3, 0]}, ConfigError, r"parts is \[3, 0\]; expected at least one response in each"),
        ({"accumulation": "average"}, ConfigError, "accumulation is 'average'; expected one of global, mean, sum"),
        ({"mask": MASK.double()}, BatchError, r"mask is torch.float64 \(3, 3\); expected bool"),
    ],
)
def test_weights_reject(arguments, error, message):
    given = {"mask": MASK, "reduction": "token_mean"} | arguments
    with pytest.raises(error, match=message):
        token_weights(**given)
