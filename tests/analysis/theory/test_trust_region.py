from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from analysis.theory import trust_region
from analysis.theory.entropy_dynamics import entropy
from analysis.theory.trust_region import (
    band_ratio_change,
    entropy_sensitivity,
    tabular_bound,
    total_variation,
    unsampled_worst_case,
)
from testbed.errors import ConfigError

ZIPF = 1 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()


@pytest.mark.parametrize(
    ("seen", "mass", "free", "free_kl", "clipped", "clipped_kl"),
    [
        # Worked values for Zipf(1) over 100 actions: TV and KL(π‖q) at r = 1 and at r = 0.8.
        (1, 0.193, 0.8053, 4.87, 0.8439, 5.11),
        (4, 0.402, 0.5965, 3.43, 0.6768, 3.91),
        (8, 0.524, 0.4741, 2.62, 0.5789, 3.22),
        (16, 0.652, 0.3464, 1.81, 0.4767, 2.52),
    ],
)
def test_worst_case_table(seen, mass, free, free_kl, clipped, clipped_kl):
    sampled = np.arange(100) < seen
    assert ZIPF[sampled].sum() == pytest.approx(mass, abs=6e-4)
    at_one, at_low = unsampled_worst_case(ZIPF, sampled, 0.0), unsampled_worst_case(ZIPF, sampled, 0.2)
    assert (at_one.total_variation, at_low.total_variation) == pytest.approx((free, clipped), abs=6e-5)
    assert (at_one.divergence, at_low.divergence) == pytest.approx((free_kl, clipped_kl), abs=6e-3)
    # At r = 1 the divergence is M log(M/q_min).
    rest = 1 - ZIPF[sampled].sum()
    assert at_one.divergence == pytest.approx(rest * np.log(rest / ZIPF[-1]), rel=1e-12)


def test_worst_case_is_feasible():
    sampled = np.arange(100) < 8
    policy = unsampled_worst_case(ZIPF, sampled, 0.2).policy
    assert policy.sum() == pytest.approx(1, rel=1e-12)
    assert policy[sampled] / ZIPF[sampled] == pytest.approx(np.full(8, 0.8), rel=1e-12)


def test_a_swap_of_unsampled_arms_is_invisible_to_ratio_and_entropy():
    # One arm keeps ½; the other two share ½ as σ(±4) and swap.
    old = np.array([0.5, 0.5 * expit(4.0), 0.5 * expit(-4.0)])
    new = old[[0, 2, 1]]
    assert new[0] / old[0] == 1.0
    assert float(entropy(np.log(new)) / entropy(np.log(old))) == pytest.approx(1.0, rel=1e-12)
    # ½ (σ(4) - σ(-4)) = ½ tanh 2.
    assert float(total_variation(new, old)) == pytest.approx(np.tanh(2.0) / 2, rel=1e-12)


def test_random_tabular_steps_come_close_to_the_bound():
    # Otherwise "never exceeded" would say nothing.
    drift, bound = trust_region._tabular_steps(3)
    assert drift.size > 750
    assert 0.95 < (drift / bound).max() <= 1


def test_tail_term_is_attained_by_two_equal_shifts():
    # Two distributions with log-ratios ±δ/2 are tanh(δ/4) apart: c = (1 ∓ tanh(δ/4))/2 swapped.
    for spread in (0.1, 1.0, 4.0):
        half = np.tanh(spread / 4)
        first, second = np.array([1 - half, 1 + half]) / 2, np.array([1 + half, 1 - half]) / 2
        assert np.ptp(np.log(second / first)) == pytest.approx(spread, rel=1e-12)
        assert float(total_variation(first, second)) == pytest.approx(half, rel=1e-12)


def test_tail_term_is_never_exceeded():
    generator = np.random.default_rng(0)
    for _ in range(2000):
        first = softmax(2 * generator.normal(size=4))
        second = softmax(np.log(first) + 2 * generator.uniform(size=4))
        spread = np.ptp(np.log(second / first))
        assert float(total_variation(first, second)) <= np.tanh(spread / 4) + 1e-15


def test_unsampled_logits_of_a_tabular_step_move_by_their_probability():
    # The premise of the bound, through a softmax step with two sampled arms.
    old = softmax(np.array([1.0, 0.0, -1.0, 0.5]))
    weights = np.array([0.3, -0.1, 0.0, 0.0])
    new = softmax(np.log(old) + weights - old * weights.sum())
    log_ratio = np.log(new / old)
    assert log_ratio[2] - log_ratio[3] == pytest.approx(-0.2 * (old[2] - old[3]), rel=1e-12)
    sampled = np.array([True, True, False, False])
    clip = float(np.abs(new / old - 1)[sampled].max())
    assert float(total_variation(new, old)) <= tabular_bound(old, sampled, clip, 0.2)


def test_band_table():
    # Worked values of |r - 1| that move H by 5 %, two digits.
    assert band_ratio_change([0.6, 0.7, 0.8]) == pytest.approx([0.138, 0.052, 0.023], abs=6e-4)
    assert band_ratio_change([0.9, 0.95, 0.99]) == pytest.approx([0.0082, 0.0036, 6.2e-4], abs=6e-5)
    # A rare token in such a state.
    assert (np.abs(band_ratio_change([0.01, 0.03, 0.05]) - 0.0625) < 0.009).all()
    assert float(entropy_sensitivity(0.5)) == 0.0


def test_rejects_when_everything_was_sampled():
    with pytest.raises(ConfigError, match="at least one action that was not sampled"):
        unsampled_worst_case([0.5, 0.5], [True, True], 0.2)
