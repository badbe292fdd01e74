"""Normalisation factors and degenerate groups against worked tables, limits and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.theory.degenerate_groups import (
    mixed_share,
    pool_mixed_share,
    pool_resampling_cost,
    resampling_cost,
)
from analysis.theory.normalisation_bias import (
    centred_factor,
    length_surrogate,
    standardised_factor,
    standardised_factor_limit,
)
from testbed.errors import ConfigError


def test_factor_table():
    # Worked values for G = 16, two digits.
    factor = standardised_factor([0.01, 0.1, 0.3, 0.5], 16)
    assert factor == pytest.approx([3.73, 2.85, 2.09, 1.93], abs=0.006)
    assert standardised_factor_limit([0.01, 0.1, 0.3, 0.5]) == pytest.approx([10.05, 3.33, 2.18, 2.0], abs=0.006)


def test_factor_limits():
    # p → 0 leaves m = 1: G p √((1/G)(1 - 1/G))/p = √(G - 1). G → ∞ leaves the textbook formula.
    assert float(standardised_factor(1e-9, 16)) == pytest.approx(np.sqrt(15), rel=1e-6)
    assert float(standardised_factor(0.3, 100_000)) == pytest.approx(float(standardised_factor_limit(0.3)), rel=1e-4)
    assert standardised_factor(0.2, 8) == pytest.approx(standardised_factor(0.8, 8), rel=1e-12)


def test_factor_by_simulation():
    # A bandit whose right arm has probability p: the expected estimator's component on its logit is c p (1 - p).
    generator, p, size, groups = np.random.default_rng(0), 0.2, 8, 100_000
    right = generator.random((groups, size)) < p
    rate, deviation = right.mean(1, keepdims=True), right.std(1, keepdims=True)
    advantages = np.where(deviation > 0, (right - rate) / np.maximum(deviation, 1e-9), 0.0)
    estimate = (advantages * (right - p)).mean(1)
    expected = float(standardised_factor(p, size)) * p * (1 - p)
    assert abs(estimate.mean() - expected) < 4 * estimate.std() / np.sqrt(groups)


def test_sample_deviation_shrinks_by_a_known_factor():
    assert standardised_factor(0.3, 8, ddof=1) == pytest.approx(standardised_factor(0.3, 8) * np.sqrt(7 / 8), rel=1e-12)


def test_surrogate_prefers_short_when_right_and_long_when_wrong():
    surrogate = length_surrogate([0.25] * 4, [1, 1, 0, 0], [2, 5, 2, 5])
    assert surrogate[0] > surrogate[1] > 0 > surrogate[3] > surrogate[2]


@pytest.mark.parametrize(
    ("a", "b", "expected", "cost"),
    [
        # Worked values for G = 16: visits 1, 2, 3, 5, 10, three digits; then the multiplier of dynamic sampling.
        (0.5, 0.5, [0.720, 0.801, 0.838, 0.874, 0.911], 1.39),
        (1.0, 1.0, [0.882, 0.939, 0.959, 0.975, 0.988], 1.13),
        (0.3, 0.3, [0.566, 0.648, 0.688, 0.733, 0.783], 1.77),
        (0.3, 1.0, [0.596, 0.675, 0.714, 0.756, 0.803], 1.68),
    ],
)
def test_pool_table(a, b, expected, cost):
    shares = [pool_mixed_share(a, b, 16, visits) for visits in (1, 2, 3, 5, 10)]
    assert shares == pytest.approx(expected, abs=0.0006)
    assert pool_resampling_cost(a, b, 16) == pytest.approx(cost, abs=0.006)


def test_pool_of_one_difficulty_is_that_difficulty():
    # Beta(1000 p, 1000 (1 - p)) concentrates at p with variance p(1-p)/1001.
    assert pool_mixed_share(3e5, 7e5, 4) == pytest.approx(float(mixed_share(0.3, 4)), rel=1e-4)


def test_share_is_a_binomial_probability():
    assert float(mixed_share(0.3, 6)) == pytest.approx(stats.binom.pmf(np.arange(1, 6), 6, 0.3).sum(), rel=1e-12)
    assert float(resampling_cost(0.0, 6)) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: standardised_factor(1.0, 8), "strictly between 0 and 1"),
        (lambda: standardised_factor(0.5, 1), "at least two responses"),
        (lambda: centred_factor(1), "group_size is 1"),
        (lambda: mixed_share(0.5, 8, 0), "at least 2 responses and 1 visit"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
