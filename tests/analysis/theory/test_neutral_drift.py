from __future__ import annotations

import numpy as np
import pytest

from analysis.theory.neutral_drift import expected_entropy_drift, flat_tail, sign_change, trace
from testbed.errors import ConfigError


@pytest.mark.parametrize("arms", [2, 3, 10, 1000])
def test_uniform_policy(arms):
    assert float(trace(np.zeros(arms))) == pytest.approx(-(arms - 1) / arms**2, rel=1e-12)


def test_trace_by_finite_differences_along_the_fisher_directions():
    # tr(∇²H F) = Σ_a π_a (e_a - π)ᵀ ∇²H (e_a - π): second differences of H along every sampled direction.
    logits, step = np.array([0.5, -1.0, 1.5, 0.0]), 1e-4

    def entropy(z):
        policy = np.exp(z) / np.exp(z).sum()
        return -(policy * np.log(policy)).sum()

    policy = np.exp(logits) / np.exp(logits).sum()
    second = [
        (entropy(logits + step * (e - policy)) + entropy(logits - step * (e - policy)) - 2 * entropy(logits)) / step**2
        for e in np.eye(4)
    ]
    assert float(trace(logits)) == pytest.approx(policy @ second, abs=1e-7)  # second differences: 1e-16/1e-8


@pytest.mark.parametrize(("arms", "top"), [(2, 0.824), (10, 0.650), (100, 0.595), (1000, 0.569), (32000, 0.547)])
def test_sign_change(arms, top):
    assert sign_change(arms) == pytest.approx(top, abs=0.0006)  # worked values, three digits
    assert float(trace(flat_tail(top - 0.01, arms))) < 0 < float(trace(flat_tail(top + 0.01, arms)))


def test_standardised_random_rewards_drift_as_predicted():
    # The published setting: Bernoulli(1/2) rewards, standardised in groups of 16, averaged over 4 groups (N = 64); the
    # rare degenerate group (2^-15) moves nothing. η = 0.2, mirrored; four standard errors.
    generator, groups, learning_rate = np.random.default_rng(3), 20_000, 0.2
    logits = flat_tail(0.7, 20)
    policy = np.exp(logits)
    wins = generator.binomial(1, 0.5, size=(groups, 4, 16)).astype(float)
    deviation = wins.std(-1, keepdims=True)
    advantages = np.where(deviation > 0, (wins - wins.mean(-1, keepdims=True)) / np.maximum(deviation, 1e-9), 0)
    advantages = advantages.reshape(groups, 64)
    actions = generator.choice(20, size=(groups, 64), p=policy)
    step = np.zeros((groups, 20))
    for arm in range(20):
        step[:, arm] = (advantages * (actions == arm)).sum(1)
    step = learning_rate / 64 * (step - policy * advantages.sum(1, keepdims=True))

    def entropy(z):
        shifted = np.exp(z - z.max(-1, keepdims=True))
        moved = shifted / shifted.sum(-1, keepdims=True)
        return -(moved * np.log(moved)).sum(-1)

    change = (entropy(logits + step) + entropy(logits - step)) / 2 - entropy(logits)
    expected = float(expected_entropy_drift(logits, learning_rate, 64))
    assert expected > 0
    assert abs(change.mean() - expected) < 4 * change.std() / np.sqrt(groups)
    # The error is small enough to tell the prediction from none at all.
    assert change.std() / np.sqrt(groups) < 0.1 * expected


def test_rejects():
    with pytest.raises(ConfigError, match=r"probability 1\.0 and arms 5"):
        flat_tail(1.0, 5)
