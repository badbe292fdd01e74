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
    # Below 20 seeds at a fifth of the error.
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.98 if seeds < 20 else 0.9)
    bounds = interval(values)
    assert bounds.low <= low * (1 + 1e-12)
    assert bounds.high >= high * (1 - 1e-12)
    assert bounds.method == "wider of t and studentised bootstrap"
    assert bounds.level == 0.9


@pytest.mark.parametrize(("seeds", "level"), [(19, 0.98), (20, 0.9)])
def test_few_seeds_use_a_fifth_of_the_error(seeds, level):
    values = np.random.default_rng(2).lognormal(size=seeds)
    classical = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    bootstrap = studentised(values, "mean", 10_000, 0)(level)
    bounds = interval(values)
    expected = (min(classical.low, bootstrap[0]), max(classical.high, bootstrap[1]))
    assert (bounds.low, bounds.high) == pytest.approx(expected, rel=1e-12)
    # Skewed to the right: above, the bootstrap reaches further, and below, t does.
    assert (bounds.low, bounds.high) == pytest.approx((classical.low, bootstrap[1]), rel=1e-12)


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
    # 24 zeros and a two: (24/25)^25 = 36 % of the resamples miss the two and have no spread, so nothing above is
    # ruled out.
    bounds = interval([0.0] * 24 + [2.0], 0.99)
    assert bounds.high == math.inf
    # Student's t is the wider one below.
    margin = stats.t.ppf(0.995, 24) * 0.08
    assert bounds.low == pytest.approx(0.08 - margin, rel=1e-12)
    judgement = decide(bounds, "less", 0.5)
    # (24/25)^n falls below 0.005 at 130: 129.8 = log 0.005 / log 0.96.
    assert (judgement.verdict, judgement.seeds_needed) == ("inconclusive", 130)
    assert judgement.reason.endswith("about 130 seeds would bound it")


def test_seeds_from_which_both_sides_are_bounded():
    # Five different values: 5 · (1/5)ⁿ of the resamples are one value n times, and below 20 seeds 0.001 of them may
    # be: 5/5⁵ = 0.0016 and 5/5⁶ = 0.00032.
    bounds = interval([1.0, 2.0, 4.0, 7.0, 11.0], 0.99)
    assert (bounds.low, bounds.high, bounds.seeds_needed) == (-math.inf, math.inf, 6)
    # Half of the values are one: 1/2ⁿ is 0.002 at 9 and 0.00098 at 10 seeds.
    assert interval([1.0, 1.0, 1.0, 4.0, 5.0, 6.0], 0.99).seeds_needed == 10
    # Two halves: 2/2ⁿ is 0.00195 at 10 and 0.00098 at 11 seeds.
    assert interval([1.0, 1.0, 1.0, 4.0, 4.0, 4.0], 0.99).seeds_needed == 11
    # 7/10: 0.7¹⁹ = 0.0011 > 0.001, so it takes twenty, where 0.005 of them may be and 0.7²⁰ = 0.0008.
    assert interval([1.0] * 7 + [4.0, 5.0, 6.0], 0.99).seeds_needed == 20
    # With two bounds nothing is missing.
    assert interval(normal(30), 0.99).seeds_needed is None


def test_yes_and_no_have_the_exact_interval():
    # 31 of 32: below, the exact interval reaches further than t, and above, t does.
    bounds = interval([1.0] * 31 + [0.0], 0.99)
    exact = stats.binomtest(31, 32).proportion_ci(0.99, method="exact")
    margin = stats.t.ppf(0.995, 31) / 32
    assert (bounds.low, bounds.high) == pytest.approx((exact.low, 31 / 32 + margin), rel=1e-12)
    # The one seed that differs may be one of a difference that is as often -1.
    assert judge([0.0] * 31 + [1.0], "greater", 0.0, 0.99).verdict == "inconclusive"


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
    ("draw", "truth", "least", "most"),
    [
        # 400 sets: a true 90 % interval covers at least 346 times with probability 0.995, a wider one more often.
        (lambda rng: rng.normal(size=25), 0.0, 346, 385),
        # Skewness 0.95 (lognormal with σ = 0.3), and heavy tails (t with 3 degrees of freedom).
        (lambda rng: rng.lognormal(0.0, 0.3, size=25), math.exp(0.045), 346, 385),
        (lambda rng: rng.standard_t(3, size=25), 0.0, 346, 385),
        # Below 20 seeds at 98 %: at least 383 times with probability 0.997.
        (lambda rng: rng.normal(size=8), 0.0, 383, 400),
    ],
)
def test_coverage_by_simulation(draw, truth, least, most):
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        bounds = interval(draw(rng), resamples=1000)
        covered += bounds.low <= truth <= bounds.high
    assert least <= covered <= most


@pytest.mark.parametrize(("estimator", "least"), [("mean", 528), ("iqm", 19), ("median", 8)])
def test_equal_values_give_an_interval_where_they_leave_little_open(estimator, least):
    # 0.99⁵²⁷ = 0.00501, 0.75¹⁸ = 0.0056, 0.5⁷ = 0.0078; with one seed more below 0.005.
    few = interval([0.1] * (least - 1), 0.99, estimator)
    assert few.estimate == 0.1
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    assert (few.equal, few.seeds_needed, few.method) == (True, least, "all values equal")
    many = interval([0.1] * least, 0.99, estimator)
    assert (many.low, many.high, many.seeds_needed) == (0.1, 0.1, None)
    # A support bounds a mean only: the others are not moved by what equal values leave open.
    known = interval([0.1] * least, 0.99, estimator, support=(0.0, 1.0))
    assert (known.high > 0.1) == (estimator == "mean")


def test_equal_but_for_rounding_is_equal():
    # 0.1 + 0.2 is the next number above 0.3.
    bounds = interval([0.3] * 5 + [0.1 + 0.2] * 5)
    assert math.isnan(bounds.low)
    assert bounds.equal
    assert not interval([0.3] * 5 + [0.3 + 1e-9] * 5).equal


@pytest.mark.parametrize("seeds", [8, 16])
def test_very_skewed_values_of_few_seeds_are_covered(seeds):
    # Lognormal, σ = 1: 1 to 2 % of 99 % intervals miss, of Student's t 8 to 9 %. 99.9 % of binomial(400, 0.02) lies
    # below 19.
    rng = np.random.default_rng(seeds)
    truth, missed = math.exp(0.5), 0
    for _ in range(400):
        bounds = interval(rng.lognormal(size=seeds), 0.99, resamples=4000)
        missed += bounds.low > truth or bounds.high < truth
    assert missed < 19


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
    # The interquartile mean of eight values by hand in test_few_seeds_interquartile_mean_by_hand: 4.5, √(7/6), three
    # degrees of freedom. The values are skewed to the right, so that t is the wider one below.
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 30.0, 40.0])
    expected = stats.t.sf(3.5 / math.sqrt(7 / 6), 3)
    # The bisection stops at a relative 1e-6.
    assert p_value(values, "greater", 1.0, "iqm") == pytest.approx(expected, rel=1e-5)
    assert p_value(values, "less", 1.0, "iqm") == pytest.approx(1 - expected, rel=1e-5)


def test_p_value_of_few_seeds_is_five_times_that_of_the_wider_interval():
    values = np.random.default_rng(2).lognormal(size=12)
    expected = 5 * stats.ttest_1samp(values, 0.3, alternative="greater").pvalue
    assert p_value(values, "greater", 0.3) == pytest.approx(expected, rel=1e-5)


def test_p_value_of_equal_values_is_the_share_they_leave_open():
    # In [0, 1], below 0.95: all of 104 seeds at 1 has probability 0.95¹⁰⁴ at most.
    assert p_value(np.ones(104), "greater", 0.95, support=(0.0, 1.0)) == pytest.approx(0.95**104, rel=1e-5)
    # Without a support the smallest α at which an interval exists, 0.99ⁿ.
    assert p_value(np.ones(300), "greater", 0.95) == pytest.approx(0.99**300, rel=1e-5)
    assert p_value(np.ones(20), "greater", 0.95) == 0.5


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
