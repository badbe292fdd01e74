"""Intervals against textbook formulas, coverage by simulation, verdicts by truth table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    Interval,
    benjamini_hochberg,
    decide,
    holm,
    interquartile_mean,
    interval,
    judge,
    judge_identity,
    monotone_trend,
    order_p_value,
    p_value,
    probability_of_improvement,
    proportion_interval,
    seeds_needed,
    smallest_step,
    survival,
)
from analysis.statistics import _studentised as studentised
from testbed.errors import ConfigError


def normal(seeds: int, mean: float = 0.0, scale: float = 1.0, stream: int = 0) -> np.ndarray:
    return np.random.default_rng(stream).normal(mean, scale, seeds)


# -- intervals -----------------------------------------------------------------------------------------------


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


# -- p-values ------------------------------------------------------------------------------------------------


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


# -- proportions, times, orders ------------------------------------------------------------------------------


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


def test_order_is_judged_by_its_smallest_step():
    rng = np.random.default_rng(2)
    base = rng.normal(size=(30, 1))
    in_order = base + np.array([0.0, 1.0, 1.5, 3.0]) + 0.2 * rng.normal(size=(30, 4))
    step = smallest_step(in_order)
    assert step.estimate == pytest.approx(np.diff(in_order, axis=1).mean(0).min(), rel=1e-12)
    assert decide(step, "greater").verdict == "reproduced"
    assert decide(smallest_step(in_order, "decreasing"), "greater").verdict == "refuted"
    # One step the wrong way refutes the whole order although the trend is plain.
    swapped = in_order[:, [0, 2, 1, 3]]
    assert decide(smallest_step(swapped), "greater").verdict == "refuted"
    assert monotone_trend(swapped) < 1e-6
    # Equal neighbours are not in order, but they do not refute it either.
    tied = base + np.array([0.0, 1.0, 1.0]) + 0.2 * rng.normal(size=(30, 3))
    assert decide(smallest_step(tied), "greater").verdict == "inconclusive"


def test_order_p_value_agrees_with_the_smallest_step():
    rng = np.random.default_rng(4)
    for shift in (0.1, 0.3, 0.6):
        table = rng.normal(size=(30, 3)) + shift * np.arange(3)
        for alpha in (0.005, 0.05, 0.2):
            verdict = decide(smallest_step(table, level=1 - 2 * alpha), "greater", 0.05).verdict
            assert (verdict == "reproduced") == (order_p_value(table, threshold=0.05) <= alpha)
    falling = -np.arange(3) + 0.1 * rng.normal(size=(10, 3))
    assert order_p_value(falling, "decreasing") < 0.001
    assert order_p_value(falling) > 0.999


def test_page_by_hand():
    # L = Σ_c c · (rank sum of c). Five seeds all in order: L = 5 (1 + 4 + 9) = 70; E = n k (k+1)²/4 = 60,
    # Var = n k² (k+1)² (k-1) / 144 · … = n (k³ - k)² / (144 (k - 1)) = 5 · 576 / 288 = 10.
    expected = stats.norm.sf((70 - 60) / math.sqrt(10))
    assert monotone_trend([[1.0, 2.0, 3.0]] * 5) == pytest.approx(expected, rel=1e-12)
    assert monotone_trend([[3.0, 2.0, 1.0]] * 5, "decreasing") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [([[1.0, 2.0]] * 5, "at least 5 seeds and 3"), ([[1.0, 2.0, 3.0]] * 4, "at least 5 seeds and 3")],
)
def test_page_rejects(values, message):
    with pytest.raises(ConfigError, match=message):
        monotone_trend(values)


# -- multiplicity --------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, made monotone: .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], rel=1e-12)
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_holm_keeps_the_family_error():
    # 4000 families of five true nulls; any rejection at 0.05 has probability at most 0.05 + 3.3 standard errors.
    p = np.random.default_rng(0).uniform(size=(4000, 5))
    any_rejected = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert 0.035 < any_rejected < 0.0615


def test_benjamini_hochberg_by_hand():
    # Sorted .005 .01 .03 .04 times 4/rank: .02 .02 .04 .04.
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02], rel=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_adjustment_rejects_missing(adjust):
    with pytest.raises(ConfigError, match=r"every entry in \[0, 1\]"):
        adjust([0.1, math.nan])


# -- verdicts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "threshold", "low", "high", "verdict", "opposite"),
    [
        ("greater", 0.1, 0.2, 0.4, "reproduced", False),
        ("greater", 0.1, 0.05, 0.4, "inconclusive", False),
        ("greater", 0.1, -0.05, 0.05, "refuted", False),
        ("greater", 0.1, -0.4, -0.2, "refuted", True),
        ("greater", 0.1, -0.4, 0.2, "inconclusive", False),
        ("greater", 0.1, 0.1, 0.4, "inconclusive", False),
        ("greater", -0.1, -0.05, 0.05, "reproduced", False),
        ("less", -0.1, -0.4, -0.2, "reproduced", False),
        ("less", -0.1, -0.4, -0.05, "inconclusive", False),
        ("less", -0.1, -0.05, 0.05, "refuted", False),
        ("less", -0.1, 0.2, 0.4, "refuted", True),
        ("less", 0.0, 0.2, 0.4, "refuted", True),
        ("equivalent", 0.1, -0.05, 0.05, "reproduced", False),
        ("equivalent", 0.1, -0.05, 0.15, "inconclusive", False),
        ("equivalent", 0.1, 0.15, 0.3, "refuted", False),
        ("equivalent", 0.1, -0.3, -0.15, "refuted", False),
        ("equivalent", 0.1, -0.3, 0.3, "inconclusive", False),
    ],
)
def test_verdict_truth_table(direction, threshold, low, high, verdict, opposite):
    judgement = decide(Interval((low + high) / 2, low, high, 0.9, "t", 20), direction, threshold)
    assert (judgement.verdict, judgement.opposite) == (verdict, opposite)


def test_fewer_than_five_seeds_never_give_a_verdict():
    judgement = judge([9.0, 9.0, 9.0, 9.0], "greater")
    assert judgement.verdict == "inconclusive"
    assert judgement.seeds_needed == 5
    assert judgement.estimate == 9.0
    assert math.isnan(judgement.low)
    assert decide(proportion_interval([1, 1, 1, 1]), "greater", 0.1).verdict == "inconclusive"


@pytest.mark.parametrize("seeds", [6, 20, 60])
def test_planted_effects_are_found_and_their_mirror_is_refuted(seeds):
    values = normal(seeds, 2.0, 0.5)
    assert judge(values, "greater", 1.0).verdict == "reproduced"
    assert judge(values, "less", 1.0).verdict == "refuted"
    assert judge(-values, "greater", 1.0).opposite
    assert judge(values, "equivalent", 1.0).verdict == "refuted"
    assert judge(values - 2.0, "equivalent", 1.0).verdict == "reproduced"
    assert judge(values, "greater", float(values.mean())).verdict == "inconclusive"


def test_false_verdicts_on_a_null_stay_below_alpha():
    # Claim "greater than 0" on null differences: reproduced and refuted each at most 5 %. 400 sets: 99.9 % of
    # binomial(400, 0.06) lies below 41; 6 % allows for the bootstrap at 25 seeds.
    rng = np.random.default_rng(8)
    verdicts = [judge(rng.normal(size=25), "greater", resamples=1000).verdict for _ in range(400)]
    assert verdicts.count("reproduced") < 41
    assert verdicts.count("refuted") < 41


def test_seeds_needed_is_enough():
    values = normal(10, 0.5, 1.0, stream=4)
    needed = seeds_needed(values, "greater")
    judgement = judge(values, "greater")
    assert judgement.verdict == "inconclusive"
    assert judgement.seeds_needed == needed
    # A larger sample with the same mean and spread settles it, and one of half the size does not.
    shape = stats.norm.ppf((np.arange(needed) + 0.5) / needed)
    larger = values.mean() + values.std(ddof=1) * shape / shape.std(ddof=1)
    assert judge(larger, "greater").verdict == "reproduced"
    shape = shape[: needed // 2 * 2 : 2]
    smaller = values.mean() + values.std(ddof=1) * (shape - shape.mean()) / shape.std(ddof=1)
    assert judge(smaller, "greater").verdict == "inconclusive"


def test_seeds_needed_by_hand():
    # 20 seeds, half-width 1/2 to a threshold 1/4 away: four times the seeds bring it there, one more past it.
    bounds = Interval(0.5, 0.0, 1.0, 0.9, "t", 20)
    assert decide(bounds, "greater", 0.25).seeds_needed == 81
    assert decide(bounds, "less", 0.75).seeds_needed == 81
    # Equivalent within 0.75: 1/4 to the near side, 5/4 to the far one.
    assert decide(bounds, "equivalent", 0.75).seeds_needed == 81
    # Outside ±0.25 only the near side is in the way.
    assert decide(bounds, "equivalent", 0.25).seeds_needed == 81
    assert decide(bounds, "greater", 0.5).seeds_needed is None
    assert "no number of seeds" in decide(bounds, "greater", 0.5).reason


def test_reason_says_what_was_compared():
    judgement = decide(Interval(0.5, 0.2, 0.8, 0.9, "t", 20), "greater", 0.1)
    assert judgement.reason == "the 90 % interval [0.2, 0.8] of 20 seeds lies wholly above 0.1"


@pytest.mark.parametrize(
    ("direction", "threshold", "message"),
    [
        ("bigger", 0.0, "direction is 'bigger'; expected 'greater', 'less' or 'equivalent'"),
        ("equivalent", 0.0, "'equivalent' needs a positive half-width"),
        ("greater", math.nan, "threshold is nan; expected a finite number"),
    ],
)
def test_judge_rejects(direction, threshold, message):
    with pytest.raises(ConfigError, match=message):
        judge(normal(20), direction, threshold)


def test_identity():
    assert judge_identity(1e-12, 1e-12).verdict == "reproduced"
    assert judge_identity(2e-12, 1e-12).verdict == "refuted"
    assert judge_identity(math.inf, 1e-12).verdict == "refuted"


@pytest.mark.parametrize(
    ("error", "tolerance", "message"),
    [(0.0, -1.0, "tolerance is -1"), (0.0, math.nan, "tolerance is nan"), (-1.0, 1.0, "error is -1")],
)
def test_identity_rejects(error, tolerance, message):
    with pytest.raises(ConfigError, match=message):
        judge_identity(error, tolerance)
