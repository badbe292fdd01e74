"""Low-rank logits: the start, and how learning in one state moves another."""

from __future__ import annotations

import torch

from models.low_rank import LowRankPolicy
from models.policy import Samples


def one_token(token: int, state: int) -> Samples:
    ones = torch.ones(1, 1, 1, dtype=torch.int64)
    nothing = torch.zeros(1, 1, 1, dtype=torch.float64)
    return Samples(ones * state, ones * token, ones.bool(), nothing, None, ones[0] * state, ones[0] * token)


def test_interference_is_the_inner_product_of_features() -> None:
    # dz_s' = η [1(s=s')·(e - π)·WᵀW + U_s·U_s' (e - π)] + O(η²) for one step on log π(a|s).
    policy = LowRankPolicy(torch.zeros(1, 3, 4, dtype=torch.float64), rank=2)
    features, weights = policy.features.clone()[0], policy.weights.clone()[0]
    before = policy.table().clone()
    samples, rate = one_token(token=2, state=0), 1e-6
    policy.evaluate(samples, entropies=False)
    gradients = policy.gradient(samples, torch.ones(1, 1, 1, dtype=torch.float64), None)
    for parameter, gradient in zip(policy.parameters, gradients, strict=True):
        parameter.add_(gradient, alpha=rate)
    error = torch.tensor([-0.25, -0.25, 0.75, -0.25], dtype=torch.float64)
    expected = torch.outer(features @ features[0], error)
    expected[0] += error @ weights.T @ weights
    # The step's own curvature, η·|dU·dW|, is the relative error.
    torch.testing.assert_close((policy.table() - before)[0] / rate, expected, rtol=1e-5, atol=1e-8)
    assert float(expected[1:].abs().max()) > 0.05


def test_a_step_is_on_average_as_long_as_in_a_table() -> None:
    # E|W_a|² + E|U_s|² = 1; at rank 64 the mean over 200 entries is within 1/√(64·200) ≈ 1 % or so.
    policy = LowRankPolicy(torch.zeros(1, 200, 200, dtype=torch.float64), rank=64)
    own = policy.weights[0].square().sum(0).mean() + policy.features[0].square().sum(-1).mean()
    assert abs(float(own) - 1) < 0.03


def test_any_rank_starts_at_the_policy_it_is_given() -> None:
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for rank in (1, 2, 7):
        policy = LowRankPolicy(logits, rank=rank)
        torch.testing.assert_close(policy.table(), logits, rtol=1e-12, atol=1e-14)


def test_what_is_learned_has_the_rank() -> None:
    policy = LowRankPolicy(torch.zeros(1, 6, 6, dtype=torch.float64), rank=2)
    for parameter in policy.parameters:
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    learned = (policy.table() - policy.offset)[0]
    assert int(torch.linalg.matrix_rank(learned)) == 2
