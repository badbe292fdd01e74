from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from analysis.theory.bandit_flow import (
    escape_time,
    improvement_rate,
    natural_improvement_rate,
    needle_gap,
    needle_probability,
    needle_regret,
    policy_gradient,
    replicator,
)
from testbed.errors import ConfigError


def test_solution_satisfies_its_implicit_equation():
    for arms, gap, start in ((2, 0.3, -3.0), (50, 1.0, -1.0), (1000, 0.1, 2.0)):
        times = np.array([0.0, 0.5, 20.0, 1e5])
        d = needle_gap(times, arms, gap, start)

        def left(d, others=arms - 1.0):
            return np.exp(d) + 2 * others * d - others**2 * np.exp(-d)

        # Two numbers of size 1e6 are subtracted for K = 1000, hence the absolute part.
        assert left(d) - left(np.array(start)) == pytest.approx(arms * gap * times, rel=1e-9, abs=1e-8)


def test_two_arms_have_the_hyperbolic_form():
    times = np.array([1.0, 30.0, 1000.0])
    d = needle_gap(times, 2, 0.3, -3.0)
    assert d + np.sinh(d) == pytest.approx(-3 + np.sinh(-3.0) + 0.3 * times, rel=1e-10)


def test_euler_converges_in_first_order():
    def simulated(step: float) -> float:
        logits, rewards = np.array([-2.0, *np.zeros(9)]), np.array([0.5, *np.zeros(9)])
        for _ in range(round(50 / step)):
            logits = logits + step * policy_gradient(logits, rewards)
        return logits[0] - logits[1]

    exact = float(needle_gap(50.0, 10, 0.5, -2.0))
    errors = np.array([abs(simulated(step) - exact) for step in (1.0, 0.1, 0.01)])
    slope = np.polyfit(np.log([1.0, 0.1, 0.01]), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)  # the coarsest step still carries second-order error
    assert errors[-1] < 1e-3


def test_late_suboptimality_is_independent_of_the_gap():
    for arms, gap in ((2, 0.3), (2, 3.0), (10, 1.0)):
        time = 1e6
        left = gap * (1 - needle_probability(needle_gap(time, arms, gap, 0.0), arms))
        assert float(left * time) == pytest.approx((arms - 1) / arms, rel=1e-3)  # corrections are log(t)/t


def test_escape_time_is_when_the_arm_reaches_one_half():
    for arms, start, gap in ((2, 0.01, 0.3), (100, 1e-3, 1.0)):
        time = escape_time(start, arms, gap)
        initial = np.log((arms - 1) * start / (1 - start))
        assert float(needle_probability(needle_gap(time, arms, gap, initial), arms)) == pytest.approx(0.5, rel=1e-9)
        assert time == pytest.approx((arms - 1) / arms / (start * gap), rel=0.12)  # leading term only


def test_regret_is_the_sum_of_what_is_missed():
    times = np.linspace(0, 200, 20_001)
    missed = 0.5 * (1 - needle_probability(needle_gap(times, 10, 0.5, -2.0), 10))
    # Trapezoidal rule, error of order step²·curvature.
    assert float(needle_regret(200.0, 10, 0.5, -2.0)) == pytest.approx(np.trapezoid(missed, times), rel=1e-6)


@pytest.mark.parametrize(("natural", "rate"), [(False, improvement_rate), (True, natural_improvement_rate)])
def test_improvement_rates_by_finite_steps(natural, rate):
    generator = np.random.default_rng(0)
    logits, rewards = 2 * generator.normal(size=50), generator.normal(size=50)
    step = rewards if natural else policy_gradient(logits, rewards)
    value = [softmax(logits + eta * step) @ rewards for eta in (-1e-6, 1e-6)]
    assert float(rate(logits, rewards)) == pytest.approx((value[1] - value[0]) / 2e-6, rel=1e-7)  # differences


def test_natural_flow_leaves_the_plateau_faster():
    generator = np.random.default_rng(0)
    logits, rewards = 2 * generator.normal(size=50), generator.normal(size=50)
    assert natural_improvement_rate(logits, rewards) > 3 * improvement_rate(logits, rewards)


def test_replicator_of_two_arms_is_a_sigmoid():
    # p = σ(d₀ + Δt).
    for time in (0.0, 2.0, 10.0):
        expected = 1 / (1 + np.exp(-(-1.0 + 0.4 * time)))
        assert replicator([-1.0, 0.0], [0.4, 0.0], time)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("arms", "gap", "time"), [(1, 1.0, 1.0), (2, 0.0, 1.0), (2, 1.0, -1.0)])
def test_rejects(arms, gap, time):
    with pytest.raises(ConfigError, match="at least 2 arms, a positive gap and times ≥ 0"):
        needle_gap([time], arms, gap, 0.0)
