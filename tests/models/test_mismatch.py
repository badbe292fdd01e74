"""Samplers that differ from the trainer: what each kind draws from, and what it reports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.mismatch import make_mismatch, mismatches
from models.policy import Policy, Samples
from testbed.errors import ConfigError, UnknownNameError

Make = Callable[..., Policy]

MOE = "moe(layers=1,width=8,heads=2,experts=3,active=1)"


def ends(states: Tensor, tokens: Tensor) -> Tensor:
    return torch.where(states == 0, 1 + tokens, torch.full_like(states, -1))


def draw(given: float | str, policy: Policy, normals: Tensor | None = None) -> Samples:
    mismatch = make_mismatch(given)
    numbers = mismatch.numbers(policy, 8, 2)
    if normals is None:
        generator = torch.Generator().manual_seed(0)
        normals = torch.randn(policy.shape[0], numbers, generator=generator, dtype=torch.float64)
    assert normals.shape == (policy.shape[0], numbers)
    uniforms = torch.rand(policy.shape[0], 8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return mismatch.sample(policy, torch.zeros(8, dtype=torch.int64), ends, uniforms, normals, entropies=False)


@pytest.mark.parametrize("name", ["tabular", "low_rank(rank=2)"])
def test_noise_is_added_and_normalised_away(name: str, make: Make) -> None:
    policy = make(name)
    normals = torch.randn(2, 6 * 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    samples = draw("noise(scale=0.5)", policy, normals)
    log_policy = policy.log_policy()
    assert log_policy is not None
    noisy = log_policy + 0.5 * normals.view(2, 6, 3)
    noisy = noisy - noisy.logsumexp(-1, keepdim=True)
    expected = noisy.flatten(1).gather(1, (samples.states * 3 + samples.tokens).flatten(1)).view_as(samples.log_probs)
    torch.testing.assert_close(samples.log_probs, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("given", ["noise(scale=0.3)", "bf16", "router(scale=2.0)"])
def test_the_trainers_own_numbers_are_others(given: str, make: Make) -> None:
    policy = make(MOE)
    before = [parameter.clone() for parameter in policy.parameters]
    samples = draw(given, policy)
    own = policy.recompute(samples, entropies=False)
    assert torch.equal(own.tokens, samples.tokens)
    gap = (samples.log_probs - own.log_probs).abs()
    assert 1e-4 < float(gap.max()) < 10
    assert all(torch.equal(one, other) for one, other in zip(before, policy.parameters, strict=True))


def test_a_stale_copy_lags_by_its_iterations(make: Make) -> None:
    policy = make("tabular")
    mismatch = make_mismatch("stale(iterations=2)")
    past = []
    for rollout in range(5):
        past.append(policy.snapshot())
        uniforms = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(rollout), dtype=torch.float64)
        zeros = torch.zeros(4, dtype=torch.int64)
        samples = mismatch.sample(policy, zeros, ends, uniforms, torch.empty(2, 0), entropies=False)
        writer = past[max(0, rollout - 2)]
        assert torch.equal(samples.log_probs, writer.evaluate(samples, entropies=False)[0])
        policy.parameters[0].add_(torch.arange(3.0))


def test_numbers_needed(make: Make) -> None:
    # noise: 6 states by 3 tokens; router: 8 sequences of 2 tokens, 1 layer of 3 experts.
    needed = {"noise(scale=1)": 18, "bf16": 0, "router(scale=1)": 48, "stale(iterations=1)": 0}
    assert {name.partition("(")[0] for name in needed} == set(mismatches.names())
    for name, count in needed.items():
        assert make_mismatch(name).numbers(make(MOE), 8, 2) == count


def test_a_policy_without_router_has_no_router_noise(make: Make) -> None:
    mismatch = make_mismatch("router(scale=1)")
    with pytest.raises(ConfigError, match="TabularPolicy has no router; use model='moe'"):
        mismatch.numbers(make("tabular"), 8, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0.0, "scale is 0.0; expected a positive number"),
        (-1, "scale is -1"),
        (float("nan"), "scale is nan"),
        (True, "mismatch is True"),
        ("noise", "mismatch noise: missing a required argument: 'scale'"),
        ("noise(sigma=1)", "mismatch noise.*Its settings: scale"),
        ("bf16(scale=1)", "mismatch bf16.*Its settings: none"),
        ("router(scale=0)", "mismatch router: scale is 0"),
        ("stale(iterations=0)", "iterations is 0; expected a whole number of at least 1"),
    ],
)
def test_bad_settings(given: float | str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mismatch(given)


def test_an_unknown_mismatch_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown mismatch 'nosie'; did you mean 'noise'"):
        make_mismatch("nosie")
