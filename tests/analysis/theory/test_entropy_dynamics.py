from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from analysis.theory.entropy_dynamics import (
    BanditState,
    entropy,
    entropy_gradient,
    entropy_rate,
    finite_step_order,
    gated_advantages,
    naive_threshold,
    raises_entropy,
    raising_threshold,
    random_state,
    sampled_entropy_change,
)


def random_logits(arms: int, scale: float = 1.5, seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=arms)


def test_gradient_by_central_differences():
    logits, step = random_logits(7), 1e-6
    numeric = [(entropy(logits + step * e) - entropy(logits - step * e)) / (2 * step) for e in np.eye(7)]
    # Central differences: rounding 1e-16/1e-6 and truncation 1e-12.
    assert entropy_gradient(logits) == pytest.approx(np.array(numeric), abs=1e-9)
    assert entropy_gradient(logits).sum() == pytest.approx(0, abs=1e-15)


def test_without_a_gate_it_is_the_covariance_with_the_log_probability():
    # X = 1: -Cov(log π, π A), the published form of the rule.
    logits, advantage = random_logits(9), np.random.default_rng(1).normal(size=9)
    policy, log_policy = np.exp(log_softmax(logits)), log_softmax(logits)
    # The policy-gradient logit step π(A - E A) carries its own centring.
    step = policy * (advantage - policy @ advantage)
    expected = -(policy * log_policy) @ step + (policy @ log_policy) * (policy @ step)
    assert entropy_rate(logits, advantage) == pytest.approx(expected, rel=1e-12)


def test_a_gate_makes_the_baseline_matter():
    logits, advantage = random_logits(9), np.random.default_rng(1).normal(size=9)
    gate = (np.arange(9) % 3 > 0).astype(float)
    assert entropy_rate(logits, advantage + 1) == pytest.approx(entropy_rate(logits, advantage), rel=1e-12)
    moved = entropy_rate(logits, gate * (advantage + 1)) - entropy_rate(logits, gate * advantage)
    assert abs(moved) > 1e-3


def test_the_states_of_the_prediction_shut_some_gates_and_leave_some_open():
    states = [random_state(seed, drift=drift) for seed in range(20) for drift in (0.02, 0.3, 1.0)]
    for name in ("ppo", "dapo", "dcpo", "erc", "bapo"):
        shut = np.mean([gated_advantages(name, state) == 0 for state in states])
        assert 0.02 < shut < 0.9
    assert all((gated_advantages("reinforce", state) != 0).all() for state in states)


def test_a_wrong_rate_has_no_first_order():
    # Dropping the gate leaves an error that does not vanish with the step.
    state = random_state(0)
    step = state.logit_step("ppo")
    rate = float(entropy_rate(state.logits, state.advantages))
    start = float(entropy(state.logits))
    errors = [abs((float(entropy(state.logits + eta * step)) - start) / eta - rate) for eta in (1e-2, 1e-3, 1e-4)]
    assert abs(np.polyfit(np.log([1e-2, 1e-3, 1e-4]), np.log(errors), 1)[0]) < 0.2
    assert finite_step_order("ppo") == pytest.approx(1, abs=0.01)  # the largest step leaves a second-order part


def test_single_token_change_by_finite_steps():
    logits, step = random_logits(6), 1e-6
    policy = np.exp(log_softmax(logits))
    numeric = [
        (entropy(logits + step * (e - policy)) - entropy(logits - step * (e - policy))) / (2 * step) for e in np.eye(6)
    ]
    assert sampled_entropy_change(logits) == pytest.approx(np.array(numeric), abs=1e-9)  # differences, as above
    assert policy @ sampled_entropy_change(logits) == pytest.approx(0, abs=1e-15)


def test_threshold_solves_its_equation():
    for scale in (0.3, 1.0, 3.0):
        logits = random_logits(40, scale)
        policy, threshold = np.exp(log_softmax(logits)), float(raising_threshold(logits))
        kappa = policy**2 @ (np.log(policy) + entropy(logits))
        assert threshold * (np.log(threshold) + entropy(logits)) == pytest.approx(kappa, rel=1e-9)
        assert threshold >= naive_threshold(logits)


@pytest.mark.parametrize(
    ("policy", "entropies", "naive", "exact", "raising", "disagreement"),
    [
        # Worked examples published with three digits; the last two are the shares of sampled mass.
        (np.arange(1, 32001) ** -1.2, 5.30, 0.005, 0.070, 0.711, 0.292),
        (np.r_[0.95, np.full(999, 0.05 / 999)], 0.54, 0.58, 0.934, 0.050, 0.0),
        (np.r_[0.5, 0.3, 0.2 / np.arange(1, 999) / (1 / np.arange(1, 999)).sum()], 2.07, 0.127, 0.380, 0.5, 0.3),
    ],
)
def test_share_of_mass_on_which_the_naive_rule_errs(policy, entropies, naive, exact, raising, disagreement):
    policy = policy / policy.sum()
    logits = np.log(policy)
    # Rounded to the digits given.
    assert float(entropy(logits)) == pytest.approx(entropies, abs=0.006)
    assert float(naive_threshold(logits)) == pytest.approx(naive, abs=0.002)
    assert float(raising_threshold(logits)) == pytest.approx(exact, abs=0.0006)
    below = raises_entropy(logits, np.ones(policy.size))
    assert policy[below].sum() == pytest.approx(raising, abs=0.0006)
    assert policy[below & (policy >= naive_threshold(logits))].sum() == pytest.approx(disagreement, abs=0.0006)


def test_four_classes():
    logits = np.log([0.9, 0.06, 0.04])
    assert raises_entropy(logits, [1.0, 1.0, 1.0]).tolist() == [False, True, True]
    assert raises_entropy(logits, [-1.0, -1.0, -1.0]).tolist() == [True, False, False]
    assert raises_entropy(logits, [0.0, 0.0, 0.0]).tolist() == [False, False, False]


def test_state_step_is_the_exact_policy_gradient_on_policy():
    logits, advantage = random_logits(5), np.array([1.0, -0.5, 0.2, 0.0, -1.0])
    policy = np.exp(log_softmax(logits))
    state = BanditState(logits, logits, advantage)
    expected = policy * (advantage - policy @ advantage)
    for name in ("ppo", "dcpo", "sapo", "gspo"):
        assert state.logit_step(name) == pytest.approx(expected, abs=1e-15)
