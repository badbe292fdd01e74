"""Intervals and p-values against textbook formulas; coverage by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import decide, interquartile_mean, interval, judge, p_value
from analysis.statistics.intervals import studentised
from testbed.errors import ConfigError


def normal(seeds: int, mean: float = 0.0, scale: float = 1.0, stream: int = 0) -> np.ndarray:
    return np.random.default_rng(stream).normal(mean, scale, seeds)


def test_interquartile_mean_by_hand():
    # Eight values: two dropped at each end, the rest average (3 + 4 + 5 + 8) / 4.
    assert interquartile_mean([100.0, 3.0, 4.0, 5.0, 8.0, 50.0, -9.0, 0.0]) == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize("seeds", [8, 25, 64])
def test_the_mean_is_at_least_students_t(seeds):
    values = normal(seeds, 1.0)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    bounds = interval(values)
    assert bounds.low <= low * (1 + 1e-12)
    assert bounds.high >= high * (1 - 1e-12)
    assert bounds.method == f"wider of t and {'BCa' if seeds < 20 else 'studentised'} bootstrap"


def test_few_seeds_skewed_takes_the_bootstrap_where_it_reaches_further():
    values = np.array([0.0, 0.1, 0.2, 0.1, 0.0, 0.1, 9.0])
    classical = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    direct = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=10_000, rng=np.random.default_rng(0)
    ).confidence_interval
    bounds = interval(values)
    assert direct.high > classical.high > direct.low > classical.low
    assert (bounds.low, bounds.high) == pytest.approx((classical.low, direct.high), rel=1e-12)


@pytest.mark.parametrize("estimator", ["mean", "iqm"])
def test_studentised_bootstrap_against_all_resamples(estimator):
    # Six skewed values: all 6⁶ resamples are listed instead of drawn, and their quotients sorted by hand.
    values = np.array([0.0, 0.3, 0.1, 0.9, 0.2, 4.0])
    drawn = values[np.array(list(itertools.product(range(6), repeat=6)))]
    if estimator == "mean":
        centre, spread = values.mean(), values.std(ddof=1) / math.sqrt(6)
        centres, spreads = drawn.mean(1), drawn.std(1, ddof=1) / math.sqrt(6)
    else:
        # One of six winsorised at each end, four kept: √(5 · variance / (4 · 3)).
        def robust(rows):
            ordered = np.sort(rows, axis=-1)
            middle = np.clip(ordered, ordered[..., 1:2], ordered[..., 4:5])
            return ordered[..., 1:5].mean(-1), np.sqrt(5 * middle.var(-1, ddof=1) / 12)

        (centre, spread), (centres, spreads) = robust(values), robust(drawn)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.sort(np.where(centres == centre, 0.0, (centres - centre) / spreads))

    def upper(alpha):
        return centre - quotients[round(alpha * (quotients.size - 1))] * spread

    # The upper bound at level 0.8 is made by the lower tail, whose quantile 10 000 draws place within four standard
    # errors: 0.1 ± 4 √(0.1 · 0.9 / 10 000) = 0.1 ± 0.012.
    found = studentised(values, estimator, 10_000, 0)(0.8)[1]
    assert upper(0.112) <= found <= upper(0.088)


def test_few_seeds_interquartile_mean_by_hand():
    # Eight values, two winsorised at each end: 3 3 3 4 5 6 6 6, mean 4.5, sum of squares 14, variance 14/7 = 2.
    # Kept 4: standard error √(7 · 2 / (4 · 3)) = √(7/6), 3 degrees of freedom.
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 30.0, 40.0])
    margin = stats.t.ppf(0.95, 3) * math.sqrt(7 / 6)
    bounds = interval(values, estimator="iqm")
    assert bounds.estimate == pytest.approx(4.5, rel=1e-12)
    assert bounds.low == pytest.approx(4.5 - margin, rel=1e-12)
    # The bootstrap can reach the outliers on the right and the hull keeps it.
    assert bounds.high > 4.5 + margin


def test_few_seeds_median_covers_the_order_statistics():
    # P(all five on one side of the median) = 2/32 < 0.1: the range of five values is the exact 90 % interval.
    bounds = interval([3.0, 1.0, 2.0, 5.0, 4.0], estimator="median")
    assert (bounds.estimate, bounds.low, bounds.high) == (3.0, 1.0, 5.0)
    # 2/32 > 0.05: five values cannot bound the median at 95 %.
    wider = interval([3.0, 1.0, 2.0, 5.0, 4.0], level=0.95, estimator="median")
    assert (wider.low, wider.high) == (-math.inf, math.inf)


def test_many_seeds_median_equals_scipys_bca():
    values = np.random.default_rng(3).lognormal(size=24)
    direct = stats.bootstrap(
        (values,),
        np.median,
        confidence_level=0.9,
        n_resamples=10_000,
        vectorized=True,
        axis=-1,
        rng=np.random.default_rng(0),
    ).confidence_interval
    bounds = interval(values, estimator="median")
    assert (bounds.low, bounds.high) == (direct.low, direct.high)
    assert bounds.method == "BCa bootstrap"


def test_a_side_the_resamples_cannot_bound_is_open():
    # 24 zeros and a one: (24/25)^25 = 36 % of the resamples miss the one and have no spread, so nothing above is
    # ruled out.
    bounds = interval([0.0] * 24 + [1.0], 0.99)
    assert bounds.high == math.inf
    # Student's t is the wider one below.
    margin = stats.t.ppf(0.995, 24) * 0.04
    assert bounds.low == pytest.approx(0.04 - margin, rel=1e-12)
    assert decide(bounds, "less", 0.5).verdict == "inconclusive"


def test_an_interquartile_mean_of_mostly_equal_values_is_bounded():
    values = np.concatenate([np.zeros(50), np.linspace(-0.01, 0.01, 14)])
    bounds = interval(values, 0.99, "iqm")
    assert -0.01 < bounds.low <= 0.0 <= bounds.high < 0.01


def test_many_seeds_mean_close_to_students_t():
    values = normal(200, 3.0, 2.0)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    bounds = interval(values)
    # The bootstrap quantiles of 10 000 resamples have a standard error of about √(.05·.95/1e4)/φ(1.64) = 0.021
    # standard errors of the mean, and skewness 0.1 of these 200 values moves the bootstrap by less than that.
    assert (bounds.low, bounds.high) == pytest.approx((low, high), abs=0.06 * 2.0 / math.sqrt(200))


@pytest.mark.parametrize(
    ("draw", "estimator", "truth", "least"),
    [
        # 400 sets: a true 90 % interval covers at least 346 times with probability 0.995, a wider one more often.
        (lambda rng: rng.normal(size=25), "mean", 0.0, 346),
        # Skewness 0.95 (lognormal with σ = 0.3), and heavy tails (t with 3 degrees of freedom).
        (lambda rng: rng.lognormal(0.0, 0.3, size=25), "mean", math.exp(0.045), 346),
        (lambda rng: rng.standard_t(3, size=25), "mean", 0.0, 346),
        (lambda rng: rng.normal(size=8), "mean", 0.0, 346),
    ],
)
def test_coverage_by_simulation(draw, estimator, truth, least):
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        bounds = interval(draw(rng), estimator=estimator, resamples=1000)
        covered += bounds.low <= truth <= bounds.high
    assert least <= covered <= 385


def test_equal_values_give_a_degenerate_interval():
    for seeds in (5, 20):
        bounds = interval([0.1] * seeds)
        assert (bounds.estimate, bounds.low, bounds.high) == (0.1, 0.1, 0.1)
        assert bounds.method == "all values equal"


def test_bca_undefined_falls_back_to_the_percentile_bootstrap():
    # 19 of 21 values equal: no resampled median lies below the estimate 0, so the bias correction is infinite.
    values = np.array([0.0] * 19 + [1.0, 2.0])
    bounds = interval(values, estimator="median")
    assert bounds.method == "percentile bootstrap"
    assert (bounds.low, bounds.high) == (0.0, 0.0)


def test_one_outlier_moves_the_mean_but_not_the_interquartile_mean():
    values = np.append(normal(30, 1.0, 0.1), 1e6)
    assert interval(values).high > 1e4
    robust = interval(values, estimator="iqm")
    assert 0.9 < robust.low < robust.high < 1.1


def test_same_values_same_interval_and_wider_with_level():
    values = normal(30)
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)
    narrow, wide = interval(values, 0.8), interval(values, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, math.nan, 2.0, 3.0, math.inf], "2 of 5 values are NaN or infinite"),
        ([1.0, 2.0, 3.0], "3 seeds; an interval needs at least 5. Run 2 more"),
        ([[1.0, 2.0]], r"shape \(1, 2\); expected \(seeds,\)"),
        ([], r"shape \(0,\)"),
    ],
)
def test_interval_rejects_values(values, message):
    with pytest.raises(ConfigError, match=message):
        interval(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 90.0}, "level is 90.0; expected a two-sided confidence level in"),
        ({"estimator": "mode"}, "estimator is 'mode'; expected one of 'mean', 'iqm', 'median'"),
        ({"resamples": 10}, "resamples is 10; expected at least 1000"),
    ],
)
def test_interval_rejects_settings(arguments, message):
    with pytest.raises(ConfigError, match=message):
        interval(normal(20), **arguments)


def test_p_value_equals_students_t_where_t_is_the_wider():
    values = normal(8, 0.8)
    expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    # The bisection stops at a relative 1e-6.
    assert p_value(values, "greater") == pytest.approx(expected, rel=1e-5)
    assert p_value(values, "less") == pytest.approx(1 - expected, rel=1e-5)


@pytest.mark.parametrize("direction", ["greater", "less", "equivalent"])
@pytest.mark.parametrize("seeds", [9, 40])
def test_p_value_agrees_with_the_interval(direction, seeds):
    for stream in range(6):
        values = normal(seeds, 0.1 * (stream - 3), 0.6, stream)
        claim = p_value(values, direction, 0.25)
        for alpha in (0.01, 0.05, 0.2):
            verdict = judge(values, direction, 0.25, level=1 - 2 * alpha).verdict
            assert (verdict == "reproduced") == (claim <= alpha)


def test_p_value_has_a_floor_and_a_centre():
    assert p_value(normal(30, 100.0), "greater", resamples=1000) == 1 / 1001
    assert p_value(normal(30, 100.0), "less", resamples=1000) == 1 - 1 / 1001
    # All values on the threshold: no evidence for either side.
    assert p_value([1.0] * 20, "greater", 1.0) == p_value([1.0] * 20, "less", 1.0) == 0.5
