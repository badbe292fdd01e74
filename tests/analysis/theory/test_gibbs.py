from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from analysis.theory.gibbs import (
    bernoulli_divergence,
    binary_success,
    gibbs_log_policy,
    gibbs_value,
    response_log_probs,
    wasted_divergence,
)
from envs import exact, make_spec
from testbed.errors import ConfigError


def test_no_other_policy_is_better():
    generator = np.random.default_rng(0)
    log_reference, rewards, beta = log_softmax(generator.normal(size=6)), generator.normal(size=6), 0.4
    best = float(gibbs_value(log_reference, rewards, beta))
    reference = np.exp(log_reference)

    def objective(policy):
        return policy @ rewards - beta * rel_entr(policy, reference).sum()

    assert objective(np.exp(gibbs_log_policy(log_reference, rewards, beta))) == pytest.approx(best, rel=1e-12)
    for _ in range(500):
        assert objective(generator.dirichlet(np.ones(6))) < best


def test_extreme_temperatures():
    # β → 0 takes the best response, β → ∞ the reference; neither overflows.
    assert np.exp(gibbs_log_policy(np.log([0.9, 0.1]), [0.0, 1.0], 1e-4)) == pytest.approx([0.0, 1.0], abs=1e-300)
    assert np.exp(gibbs_log_policy(np.log([0.9, 0.1]), [0.0, 1.0], 1e9)) == pytest.approx([0.9, 0.1], rel=1e-8)
    assert float(binary_success(0.1, 1e-4)) == 1.0
    assert float(binary_success(0.1, 1e9)) == pytest.approx(0.1, rel=1e-8)


def test_frontier_is_a_lower_bound_and_the_gibbs_policy_is_on_it():
    generator = np.random.default_rng(1)
    reference, right = softmax(generator.normal(size=12)), np.arange(12) < 4
    start = reference[right].sum()
    for _ in range(300):
        policy = generator.dirichlet(np.full(12, 0.5))
        divergence = rel_entr(policy, reference).sum()
        assert wasted_divergence(divergence, policy[right].sum(), start) >= 0
    best = np.exp(gibbs_log_policy(np.log(reference), right.astype(float), 0.3))
    divergence = rel_entr(best, reference).sum()
    assert wasted_divergence(divergence, best[right].sum(), start) == pytest.approx(0, abs=1e-14)


def test_bernoulli_divergence_by_hand():
    # ½ log(½/¼) + ½ log(½/¾) = ½ log(4/3).
    assert float(bernoulli_divergence(0.5, 0.25)) == pytest.approx(0.5 * np.log(4 / 3), rel=1e-12)
    assert float(bernoulli_divergence(1.0, 0.25)) == pytest.approx(np.log(4), rel=1e-12)


def test_listed_responses_are_all_of_them():
    spec = make_spec("ModularSum-v1", length=3, vocabulary=4, modulus=2, prompts=2)
    log_policy = torch.full((spec.states, 4), 0.25, dtype=torch.float64).log()
    log_probs, rewards = response_log_probs(spec, log_policy, 1)
    assert log_probs.size == 64
    assert np.exp(log_probs).sum() == pytest.approx(1, rel=1e-12)
    assert np.exp(log_probs) @ rewards == pytest.approx(exact.evaluate(spec, log_policy).value, rel=1e-12)


def test_listed_responses_of_unequal_length():
    spec = make_spec("VariableLength-v1", length=4, vocabulary=3)
    log_probs, _ = response_log_probs(spec, spec.initial_logits.log_softmax(-1), 0)
    # Two letters and an end mark: 2^(t-1) responses end at t < 4, and any of three tokens may be the fourth.
    assert log_probs.size == 1 + 2 + 4 + 24
    assert np.exp(log_probs).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_rejects_temperature(temperature):
    with pytest.raises(ConfigError, match="expected β > 0"):
        gibbs_log_policy(np.log([0.5, 0.5]), [0.0, 1.0], temperature)


def test_rejects_what_cannot_be_listed():
    spec = make_spec("ModularSum-v1", length=32, vocabulary=16, modulus=4)
    with pytest.raises(ConfigError, match=r"16\^32 responses are too many"):
        response_log_probs(spec, spec.initial_logits.log_softmax(-1), 0)
