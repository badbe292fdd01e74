"""From one number per seed to a judgement and a p-value, missing seeds included."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from analysis.judging.estimands import within
from analysis.judging.values import is_complete, judge_values, lowest_and_highest, one_sided_p_value, trend_p_value
from analysis.statistics import VERDICT_LEVEL, judge, monotone_trend, order_p_value, p_value, proportion_interval
from tests.analysis.judging.small import small_claim


def test_one_missing_seed_in_a_hundred_is_given_the_worst_of_the_others() -> None:
    claim = small_claim(threshold=0.5)
    values = np.full(200, 1.0) + np.random.default_rng(0).normal(0, 0.1, 200)
    values[7] = math.nan
    judged = judge_values(claim, values)
    assert judged.verdict == "reproduced"
    assert "no value in 1 of 200 seeds" in judged.reason
    # The bounds reach from those with the lowest value of any seed in its place to those with the highest.
    known = values[~np.isnan(values)]
    low, high = (judge(np.append(known, end), "greater", 0.5, VERDICT_LEVEL) for end in (known.min(), known.max()))
    assert judged.low == pytest.approx(low.low, abs=2e-3)
    assert judged.high == pytest.approx(high.high, abs=2e-3)
    values[8:10] = math.nan
    assert judge_values(claim, values).verdict == "inconclusive", "three of two hundred are too many"


def test_a_missing_seed_that_could_decide_leaves_it_open() -> None:
    # Without the missing seed the interval lies above the threshold; one more -60 among the others takes it below.
    values = np.append(np.full(150, 1.0) + np.random.default_rng(1).normal(0, 0.01, 150), [-20.0, math.nan])
    claim = small_claim(threshold=0.1, statistic="mean")
    known = judge(values[~np.isnan(values)], "greater", 0.1, VERDICT_LEVEL)
    judged = judge_values(claim, values)
    assert judged.low < known.low
    assert judged.verdict == "inconclusive"


def test_either_end_can_be_the_one_that_leaves_it_open() -> None:
    # The same upside down: with the lowest value in its place the claim stands, with the highest it does not.
    values = np.append(np.full(150, -1.0) + np.random.default_rng(1).normal(0, 0.3, 150), [4.0, math.nan])
    judged = judge_values(small_claim(direction="less", threshold=-0.8), values)
    known = values[~np.isnan(values)]
    assert judge(np.append(known, known.min()), "less", -0.8, VERDICT_LEVEL).verdict == "reproduced"
    assert judged.verdict == "inconclusive"
    assert judged.reason.endswith("give different verdicts")


def test_a_missing_seed_of_an_order_takes_the_extreme_steps() -> None:
    values = np.array([[0.0, 1.0, 3.0], [5.0, 7.0, 8.0], [math.nan, 1.0, 2.0]])
    low, high = lowest_and_highest(values)
    # Steps of the known seeds: 1, 2 and 2, 1.
    assert np.diff(low[2]).tolist() == [1.0, 1.0]
    assert np.diff(high[2]).tolist() == [2.0, 2.0]
    assert (low[:2] == values[:2]).all()


# -- p-values --------------------------------------------------------------------------------------------------------


def test_a_missing_seed_gives_the_larger_p_value() -> None:
    # One seed of 120 is missing: the highest of the others in its place leaves the mean more surely above 0 than -3,
    # the lowest of them.
    values = np.append(np.random.default_rng(2).normal(0.1, 0.3, 118), [-3.0, math.nan])
    claim = small_claim(threshold=0.01)
    known = values[~np.isnan(values)]
    ends = [p_value(np.append(known, end), "greater", 0.01) for end in (known.min(), known.max())]
    assert ends[0] > 2 * ends[1]
    # Where the seed stands among the others moves the bootstrap by its noise.
    assert one_sided_p_value(claim, values) == pytest.approx(ends[0], rel=0.1)


def test_a_missing_seed_of_an_order_gives_the_larger_p_value() -> None:
    steps = np.random.default_rng(3).normal(0.1, 0.3, (119, 2))
    steps[0] = -2.0
    values = np.concatenate([np.zeros((119, 1)), steps.cumsum(1)], axis=1)
    missing = np.concatenate([values, np.full((1, 3), math.nan)])
    claim = small_claim(statistic="smallest step", threshold=0.01)
    low, high = (np.concatenate([values, [np.cumsum([0.0, *end])]]) for end in (steps.min(0), steps.max(0)))
    ends = [order_p_value(filled, "increasing", 0.01) for filled in (low, high)]
    assert ends[0] > 2 * ends[1]
    assert one_sided_p_value(claim, missing) == pytest.approx(ends[0], rel=1e-9)


def test_the_p_value_is_on_the_side_of_the_claim() -> None:
    values = np.random.default_rng(4).normal(1.0, 0.1, 30)
    assert one_sided_p_value(small_claim(threshold=0.5), values) == p_value(values, "greater", 0.5)
    assert one_sided_p_value(small_claim(direction="less", threshold=0.5), values) == p_value(values, "less", 0.5)
    iqm = small_claim(statistic="iqm", threshold=0.98)
    assert one_sided_p_value(iqm, values) == p_value(values, "greater", 0.98, "iqm")
    order = np.stack([0 * values, -values, -2 * values], axis=1)
    falling = small_claim(statistic="smallest step", direction="less", threshold=-0.9)
    assert one_sided_p_value(falling, order) == order_p_value(order, "decreasing", 0.9)
    assert one_sided_p_value(falling, -order) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("statistic", "values"),
    [
        ("proportion", np.ones(20)),
        ("mean", np.arange(4.0)),
        # One of 99 is more than one in a hundred.
        ("mean", np.append(np.arange(98.0), math.nan)),
    ],
)
def test_no_p_value_without_an_interval(statistic: Any, values: np.ndarray) -> None:
    assert one_sided_p_value(small_claim(statistic=statistic), values) is None


def test_one_missing_seed_in_a_hundred_has_a_p_value_and_a_verdict() -> None:
    values = np.append(np.arange(99.0), math.nan)
    assert one_sided_p_value(small_claim(), values) is not None
    assert judge_values(small_claim(), values).verdict == "reproduced"


def test_a_trend_is_visible_in_three_conditions_without_gaps() -> None:
    rows = np.array([[0.0, 1.0, 2.0]] * 6) + np.random.default_rng(5).normal(0, 0.1, (6, 3))
    rising = small_claim(statistic="smallest step")
    falling = small_claim(statistic="smallest step", direction="less", threshold=-0.05)
    assert trend_p_value(rising, rows) == monotone_trend(rows, "increasing")
    assert trend_p_value(falling, rows) == monotone_trend(rows, "decreasing")
    assert trend_p_value(rising, rows[:, :2]) is None
    assert trend_p_value(rising, rows[:4]) is None
    assert trend_p_value(small_claim(), rows) is None
    rows[0, 0] = math.nan
    assert trend_p_value(rising, rows) is None


# -- judgements ------------------------------------------------------------------------------------------------------


def test_a_claim_is_judged_by_its_own_statistic() -> None:
    # Half of the seeds are 0, one is large: a mean of 1, and 0 in the middle half.
    values = np.array([0.0] * 15 + [1.0] * 4 + [16.0])
    assert judge_values(small_claim(), values).estimate == pytest.approx(1.0)
    assert judge_values(small_claim(statistic="iqm"), values).estimate == pytest.approx(0.0)
    assert judge_values(small_claim(statistic="median"), values).estimate == 0.0
    outcomes = np.array([1.0] * 18 + [0.0] * 2)
    shares = judge_values(small_claim(statistic="proportion", threshold=0.5), outcomes)
    bounds = proportion_interval(outcomes, VERDICT_LEVEL)
    assert (shares.low, shares.high, shares.verdict) == (bounds.low, bounds.high, "reproduced")


def test_a_claim_is_judged_at_its_own_level() -> None:
    values = np.random.default_rng(6).normal(0, 1, 12)
    narrow, wide = (judge_values(small_claim(level=level), values) for level in (0.5, 0.999))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2
    assert (narrow.level, wide.level) == (0.5, 0.999)
    order = np.stack([0 * values, values], axis=1)
    narrow, wide = (judge_values(small_claim(statistic="smallest step", level=level), order) for level in (0.5, 0.999))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_an_order_is_judged_by_its_smallest_step_in_its_direction() -> None:
    rows = np.array([[3.0, 2.0, 0.5]] * 40) + np.random.default_rng(8).normal(0, 0.01, (40, 3))
    falling = small_claim(statistic="smallest step", direction="less", threshold=-0.9)
    judged = judge_values(falling, rows)
    # Falls of 1 and 1.5, of which each has to exceed 0.9.
    assert judged.estimate == pytest.approx(1.0, abs=0.01)
    assert judged.verdict == "reproduced"
    assert judge_values(dataclasses.replace(falling, threshold=-1.1), rows).verdict == "refuted"
    assert judge_values(falling, rows[:, ::-1]).verdict == "refuted"


def test_too_few_seeds_have_an_estimate_and_no_verdict() -> None:
    claim = small_claim()
    judged = judge_values(claim, np.array([1.0, 2.0, 6.0, 7.0]))
    assert (judged.estimate, judged.verdict, judged.seeds) == (4.0, "inconclusive", 4)
    missing = judge_values(claim, np.array([1.0, math.nan, 6.0, 7.0]))
    assert math.isnan(missing.estimate)
    assert missing.seeds == 3
    assert math.isnan(judge_values(small_claim(statistic="smallest step"), np.zeros((4, 3))).estimate)


def test_missing_values_of_one_number_a_seed_are_the_extremes_of_the_others() -> None:
    low, high = lowest_and_highest(np.array([2.0, math.nan, -1.0, 5.0]))
    assert low.tolist() == [2.0, -1.0, -1.0, 5.0]
    assert high.tolist() == [2.0, 5.0, -1.0, 5.0]


def test_seeds_are_complete_where_all_have_a_value() -> None:
    assert is_complete(np.arange(5.0))
    assert not is_complete(np.arange(4.0))
    assert not is_complete(np.array([[1.0, 2.0]] * 5 + [[1.0, math.nan]]))


def test_where_both_ends_agree_the_reason_says_so() -> None:
    values = np.append(np.random.default_rng(7).normal(1, 0.1, 120), math.nan)
    judged = judge_values(small_claim(), values)
    assert judged.verdict == "reproduced"
    assert judged.reason.endswith(
        "; the estimand has no value in 1 of 121 seeds, and lowest and highest values in their place give the same"
    )


def test_equal_values_are_judged_by_the_support_of_the_estimand() -> None:
    claim = small_claim(direction="less", threshold=-0.1)
    equal = np.zeros(60)
    assert judge_values(claim, equal).verdict == "inconclusive"
    # At most 1 - 0.005^(1/60) = 8.5 % of the seeds elsewhere, at most 1 away.
    known = dataclasses.replace(claim, estimand=within(claim.estimand, -1.0, 1.0))
    judged = judge_values(known, equal)
    assert (judged.verdict, judged.low) == ("refuted", pytest.approx(0.005 ** (1 / 60) - 1, rel=1e-12))
    assert one_sided_p_value(known, equal) == pytest.approx(1 - 0.9**60, rel=1e-4)
    assert known.estimand.description.endswith(", in [-1, 1]")
    assert known.protocol_hash(60, 1) != claim.protocol_hash(60, 1)


def test_equal_steps_are_judged_by_the_support_of_a_step() -> None:
    claim = small_claim(statistic="smallest step", threshold=0.1)
    steps = np.random.default_rng(0).normal(size=(60, 1)) + np.array([0.0, 0.5])
    assert judge_values(claim, steps).verdict == "inconclusive"
    known = dataclasses.replace(claim, estimand=within(claim.estimand, -1.0, 1.0))
    # 0.5 - 1.5 · 8.5 % = 0.37.
    assert judge_values(known, steps).low == pytest.approx(0.5 - 1.5 * (1 - 0.005 ** (1 / 60)), rel=1e-9)
    assert one_sided_p_value(known, steps) == pytest.approx(max(1 / 10_001, (1 - 0.4 / 1.5) ** 60), rel=1e-4)
