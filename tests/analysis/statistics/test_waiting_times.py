"""Kaplan-Meier curves by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import decide, survival
from testbed.errors import ConfigError


def test_kaplan_meier_by_hand():
    # Times 1 2 2+ 3 4+ 5 6+ (+ censored), seven seeds at risk 7 6 . 4 . 2 .
    # S: 6/7, 6/7·5/6 = 5/7, 5/7·3/4 = 15/28, then 15/28·1/2 = 15/56.
    times = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    observed = np.array([True, True, False, True, False, True, False])
    curve = survival(times, observed)
    assert curve.times.tolist() == [1, 2, 3, 4, 5, 6]
    expected = [6 / 7, 5 / 7, 15 / 28, 15 / 28, 15 / 56, 15 / 56]
    assert curve.survival == pytest.approx(expected, rel=1e-12)
    assert curve.median.estimate == 5.0
    # Area: 1 + 6/7 + 5/7 + 15/28 + 15/28 + 15/56.
    area = 1 + 6 / 7 + 5 / 7 + 15 / 28 + 15 / 28 + 15 / 56
    assert curve.restricted_mean.estimate == pytest.approx(area, rel=1e-12)
    # Greenwood: areas right of the four events, squared, times d/(n(n-d)).
    right = [area - 1, area - 1 - 6 / 7, area - 1 - 6 / 7 - 5 / 7, 15 / 56]
    variance = right[0] ** 2 / 42 + right[1] ** 2 / 30 + right[2] ** 2 / 12 + right[3] ** 2 / 2
    margin = stats.norm.ppf(0.95) * math.sqrt(variance)
    assert curve.restricted_mean.low == pytest.approx(area - margin, rel=1e-12)
    assert curve.restricted_mean.high == pytest.approx(min(6.0, area + margin), rel=1e-12)
    assert curve.events == 4


def test_restricted_mean_without_censoring_is_the_plain_mean():
    times = np.random.default_rng(0).exponential(3.0, 40) + 0.1
    curve = survival(times, np.ones(40, dtype=bool))
    assert curve.restricted_mean.estimate == pytest.approx(times.mean(), rel=1e-12)
    # Greenwood without censoring is the variance with divisor n, over n.
    margin = stats.norm.ppf(0.95) * times.std() / math.sqrt(40)
    assert curve.restricted_mean.high - times.mean() == pytest.approx(margin, rel=1e-9)
    assert curve.median.estimate == np.sort(times)[19]
    assert curve.median.low < curve.median.estimate < curve.median.high


def test_restricted_mean_with_a_common_horizon_is_the_mean_of_the_cut_times():
    times = np.random.default_rng(1).exponential(3.0, 40)
    cut = np.minimum(times, 4.0)
    curve = survival(cut, times <= 4.0, horizon=4.0)
    assert curve.restricted_mean.estimate == pytest.approx(cut.mean(), rel=1e-12)


def test_a_restricted_mean_lies_between_0_and_the_horizon():
    # Four at 0.1 and one at 10: mean 2.08, standard error 3.96/√5 = 1.77, so that 1.64 of them reach below 0; mirrored,
    # mean 8.02, beyond the horizon.
    observed = np.ones(5, dtype=bool)
    early = survival(np.array([0.1] * 4 + [10.0]), observed).restricted_mean
    assert (early.estimate, early.low) == (pytest.approx(2.08, rel=1e-12), 0.0)
    late = survival(np.array([0.1] + [10.0] * 4), observed).restricted_mean
    assert (late.estimate, late.high) == (pytest.approx(8.02, rel=1e-12), 10.0)


def test_the_band_where_the_curve_is_1_or_0():
    # Before the first event every seed still waits; after the last none does, and the band does not rise again.
    curve = survival(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([False, True, True, True, True]))
    assert (curve.survival[0], curve.low[0], curve.high[0]) == (1.0, 1.0, 1.0)
    assert curve.survival[-1] == pytest.approx(0.0, abs=1e-12)
    assert (curve.low[-1], curve.high[-1]) == (0.0, curve.high[-2])
    assert 0.0 < curve.high[-2] < 1.0


def test_no_event_means_no_verdict_on_time_but_one_on_the_share():
    curve = survival(np.full(20, 300.0), np.zeros(20, dtype=bool))
    assert curve.median.estimate == math.inf
    assert curve.restricted_mean.estimate == 300.0
    assert decide(curve.restricted_mean, "greater", 200.0).verdict == "inconclusive"


def test_median_time_covers_the_truth_by_simulation():
    # Exponential times with censoring at 2; 300 sets of 30: at least 90 % - 3.5 standard errors = 252.
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        times = rng.exponential(1.0, 30)
        median = survival(np.minimum(times, 2.0), times <= 2.0).median
        covered += median.low <= math.log(2) <= median.high
    assert 252 <= covered <= 290


@pytest.mark.parametrize(
    ("times", "observed", "horizon", "message"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1, 1, 1, 1, 0], None, "expected bool"),
        ([0.0, 2.0, 3.0, 4.0, 5.0], [True] * 5, None, "times holds 0; expected positive times"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [True] * 4 + [False], 9.0, "followed to 5 only"),
        ([1.0, 2.0], [True, True], None, "2 seeds; an interval needs at least 5"),
    ],
)
def test_survival_rejects(times, observed, horizon, message):
    with pytest.raises(ConfigError, match=message):
        survival(times, observed, horizon=horizon)
