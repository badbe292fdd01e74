"""Shares of seeds against Wilson's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import probability_of_improvement, proportion_interval
from testbed.errors import ConfigError


def test_wilson_by_hand():
    # Centre (k + z²/2)/(n + z²), half-width z √(k(n-k)/n + z²/4)/(n + z²).
    z, k, n = stats.norm.ppf(0.95), 3, 20
    centre = (k + z * z / 2) / (n + z * z)
    half = z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    bounds = proportion_interval([True] * k + [False] * (n - k))
    assert bounds.estimate == k / n
    assert (bounds.low, bounds.high) == pytest.approx((centre - half, centre + half), rel=1e-12)


def test_proportion_of_none_is_not_zero_for_sure():
    bounds = proportion_interval(np.zeros(20))
    assert bounds.low == 0.0
    # k = 0: the upper Wilson bound is z²/(n + z²).
    z = stats.norm.ppf(0.95)
    assert bounds.high == pytest.approx(z * z / (20 + z * z), rel=1e-12)


def test_proportion_rejects_other_numbers():
    with pytest.raises(ConfigError, match=r"outcomes holds 0.5; expected 0 or 1"):
        proportion_interval([0.0, 0.5, 1.0])


def test_probability_of_improvement_with_and_without_ties():
    without = probability_of_improvement([1.0] * 15 + [-1.0] * 5)
    share = proportion_interval([1] * 15 + [0] * 5)
    assert (without.estimate, without.low, without.high) == (share.estimate, share.low, share.high)
    ties = probability_of_improvement([1.0] * 13 + [0.0] * 4 + [-1.0] * 3)
    assert ties.estimate == 0.75
    assert ties.low < without.low < without.high < ties.high
