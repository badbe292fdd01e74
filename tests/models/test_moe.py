"""Routing: which experts are used, how the choice is recorded, and what replaying it does to the ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.moe import MixtureOfExpertsPolicy
from models.policy import Distortion, Policy, Samples
from models.transformer import Routing
from testbed.errors import BatchError

Make = Callable[..., Policy]
Draw = Callable[..., Samples]

SHAPE = "layers=2,width=8,heads=2,experts=4"


def moe(make: Make, settings: str, replicas: int = 2) -> MixtureOfExpertsPolicy:
    policy = make(f"moe({SHAPE},{settings})", replicas)
    assert isinstance(policy, MixtureOfExpertsPolicy)
    return policy


def test_feed_forward_against_a_loop_over_experts(make: Make) -> None:
    policy = moe(make, "active=2")
    stream = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    routing = Routing(None, None, [])
    found = policy._feed_forward(policy.weights, 0, stream, (5, 1), routing)
    expected = stream.clone()
    for replica in range(2):
        for position in range(5):
            row = F.layer_norm(stream[replica, position], (8,))
            scores = row @ policy.weights["0.router"][replica]
            gates = scores.softmax(-1)
            for expert in sorted(range(4), key=lambda number: -float(scores[number]))[:2]:
                columns = slice(expert * 16, (expert + 1) * 16)
                inner = (row @ policy.weights["0.up"][replica][:, columns]).clamp(min=0)
                expected[replica, position] += gates[expert] * (inner @ policy.weights["0.down"][replica][columns])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert routing.chosen[0].shape == (2, 5, 1, 2)


def test_all_experts_active_need_no_routing(make: Make, draw: Draw) -> None:
    free, replayed = moe(make, "active=4"), moe(make, "active=4,replay='old'")
    samples = draw(free)
    torch.testing.assert_close(
        free.evaluate(samples, entropies=False)[0],
        replayed.evaluate(samples, entropies=False)[0],
        rtol=1e-12,
        atol=1e-14,
    )


def test_the_routing_recorded_while_sampling_is_that_of_one_pass(make: Make, draw: Draw) -> None:
    policy = moe(make, "active=2")
    samples = draw(policy)
    assert samples.routing is not None
    assert samples.routing.shape == (2, 6, 4, 2, 2)
    assert torch.equal(samples.routing[samples.mask], policy.route(samples)[samples.mask])
    # The record says something: not every token goes to the same experts.
    assert samples.routing[samples.mask].flatten(0, 1).unique(dim=0).shape[0] > 2


@pytest.mark.parametrize("active", [1, 2])
def test_replay_changes_nothing_while_the_router_is_the_same(active: int, make: Make, draw: Draw) -> None:
    free, replayed = moe(make, f"active={active}"), moe(make, f"active={active},replay='old'")
    samples = draw(free)
    expected = free.evaluate(samples, entropies=False)[0][samples.mask]
    found = replayed.evaluate(samples, entropies=False)[0][samples.mask]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def log_ratios(policy: MixtureOfExpertsPolicy, samples: Samples, seed: int) -> Tensor:
    """log p_new - log p_old where new is the old policy with a perturbed router."""
    perturbed = policy.snapshot()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in perturbed.weights.items():
        if name.endswith("router"):
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    assert not torch.equal(perturbed.route(samples), policy.route(samples))
    return (perturbed.evaluate(samples, entropies=False)[0] - samples.log_probs)[samples.mask]


@pytest.mark.parametrize("active", [1, 2])
def test_replay_narrows_the_ratio_when_the_router_changes(active: int, make: Make, draw: Draw) -> None:
    free, replayed = moe(make, f"active={active}", 4), moe(make, f"active={active},replay='old'", 4)
    samples = draw(free, sequences=32)
    for seed in range(3):
        without, with_replay = log_ratios(free, samples, seed), log_ratios(replayed, samples, seed)
        assert float(with_replay.std()) < float(without.std())
        assert float(with_replay.abs().max()) < float(without.abs().max())
        assert float(with_replay.abs().mean()) < float(without.abs().mean())
        assert float(with_replay.abs().mean()) > 1e-3


def test_router_noise_changes_the_experts_and_only_for_the_sampler(make: Make, draw: Draw) -> None:
    policy = moe(make, "active=1")
    assert policy.router_shape == (2, 4)
    noise = torch.zeros(2, 6, 4, 2, 4, dtype=torch.float64)
    noise[..., 3] = 1e3
    samples = draw(policy, distortion=Distortion(router_noise=noise))
    assert samples.routing is not None
    assert (samples.routing[samples.mask] == 3).all()
    assert not (policy.route(samples)[samples.mask] == 3).all()


def test_whose_routing_is_replayed_after_a_recomputation(make: Make, draw: Draw) -> None:
    noise = torch.zeros(2, 6, 4, 2, 4, dtype=torch.float64)
    noise[..., 3] = 1e3
    old, sampler = moe(make, "active=1,replay='old'"), moe(make, "active=1,replay='sampler'")
    drawn = draw(old, distortion=Distortion(router_noise=noise))
    mask = drawn.mask
    by_old, by_sampler = (policy.recompute(drawn, entropies=False) for policy in (old, sampler))
    assert by_old.routing is not None
    assert by_sampler.routing is not None
    assert torch.equal(by_old.routing[mask], old.route(drawn)[mask])
    assert (by_sampler.routing[mask] == 3).all()
    # Either way the first evaluation finds the denominator again: the ratio starts at 1.
    for policy, samples in ((old, by_old), (sampler, by_sampler)):
        log_probs, _ = policy.evaluate(samples, entropies=False)
        torch.testing.assert_close(log_probs[mask], samples.log_probs[mask], rtol=1e-12, atol=1e-14)
    assert not torch.allclose(by_old.log_probs[mask], by_sampler.log_probs[mask])


def test_replay_without_a_record_is_an_error(make: Make, draw: Draw) -> None:
    policy = moe(make, "active=2,replay='old'")
    samples = replace(draw(policy), routing=None)
    with pytest.raises(BatchError, match=r"samples.routing is None; expected shape \(2, 6, 4, 2, 2\)"):
        policy.evaluate(samples, entropies=False)


def test_a_record_of_another_shape_is_an_error(make: Make, draw: Draw) -> None:
    samples = draw(moe(make, "active=1"))
    with pytest.raises(BatchError, match=r"samples.routing is \(2, 6, 4, 2, 1\); expected shape \(2, 6, 4, 2, 2\)"):
        moe(make, "active=2,replay='old'").evaluate(samples, entropies=False)
