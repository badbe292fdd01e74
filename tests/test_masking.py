from __future__ import annotations

import math

import pytest
import torch

from testbed.masking import ResponseMask, clamp_log_ratio, gradient_through_clamp

MASK = torch.tensor([[True, True, False, False], [False, False, False, False], [True, False, True, False]])
DOUBLE = torch.float64


def test_what_a_mask_says():
    mask = ResponseMask(MASK, DOUBLE)
    assert mask.counts.tolist() == [2, 0, 2]
    assert mask.lengths.dtype == DOUBLE
    assert mask.divisors.flatten().tolist() == [2, 1, 2]
    assert (mask.total_tokens.item(), mask.total_sequences.item()) == (4, 2)
    assert mask.has_padding
    assert mask.width == 3
    assert torch.equal(mask.trimmed.tokens, MASK[:, :3])


def test_a_full_mask_costs_nothing():
    mask = ResponseMask(torch.ones(2, 3, dtype=torch.bool), DOUBLE)
    values = torch.ones(2, 3)
    assert not mask.has_padding
    assert mask.trimmed is mask
    assert mask.keep(values) is values


def test_facts_are_found_once():
    mask = ResponseMask(MASK, DOUBLE)
    mask.prepare()
    assert mask.lengths is mask.lengths
    assert mask.trimmed is mask.trimmed


def test_padding_becomes_zero_whatever_it_holds_and_has_no_gradient():
    mask = ResponseMask(MASK, DOUBLE)
    values = torch.full(MASK.shape, math.nan, dtype=DOUBLE).masked_fill(MASK, 2.0).requires_grad_()
    kept = mask.keep(values)
    assert torch.equal(kept, 2 * MASK.double())
    (first,) = torch.autograd.grad(kept.square().sum(), values, create_graph=True)
    assert torch.equal(first, 4 * MASK.double())
    # d/dx of the sum of 2x at response tokens.
    (second,) = torch.autograd.grad(first.sum(), values)
    assert torch.equal(second, 2 * MASK.double())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("clamped", "far", "slope"), [(True, 20.0, 0.0), (False, 30.0, 1.0)])
def test_a_difference_is_masked_and_clamped_in_one_pass(masked, clamped, far, slope):
    mask = ResponseMask(MASK, DOUBLE)
    values = torch.zeros(MASK.shape, dtype=DOUBLE).masked_fill(~MASK, 0.0 if masked else math.inf)
    values[0] += torch.tensor([30.0, -1.0, 0.0, 0.0])
    values.requires_grad_()
    found = mask.difference(values, torch.zeros_like(values), masked=masked, clamped=clamped)
    expected = torch.zeros(MASK.shape, dtype=DOUBLE)
    expected[0, :2] = torch.tensor([far, -1.0])
    assert torch.equal(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    slopes = torch.ones(MASK.shape, dtype=DOUBLE) if masked else MASK.double()
    slopes[0, 0] = slope
    assert torch.equal(gradient, slopes)


@pytest.mark.parametrize("expanded", [True, False])
def test_one_value_per_response_is_spread_over_its_tokens(expanded):
    mask = ResponseMask(MASK, DOUBLE)
    values = torch.tensor([[1.0], [5.0], [-2.0]], dtype=DOUBLE, requires_grad=True)
    spread = mask.spread(values)
    assert torch.equal(spread, MASK * torch.tensor([[1.0], [5.0], [-2.0]], dtype=DOUBLE))
    # A sum hands back one gradient for all tokens; weights of 1 that are a tensor of their own give the same.
    total = spread.sum() if expanded else (spread * torch.ones(MASK.shape, dtype=DOUBLE)).sum()
    (gradient,) = torch.autograd.grad(total, values)
    assert gradient.flatten().tolist() == [2, 0, 2]


def test_beyond_the_clamp_there_is_no_gradient():
    values = torch.tensor([-25.0, -1.0, 25.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(clamp_log_ratio(values).sum(), values)
    assert gradient.tolist() == [0, 1, 0]
    assert gradient_through_clamp(torch.ones(3), values.detach()).tolist() == [0, 1, 0]
