"""From one number per seed to a judgement and a p-value, missing seeds included."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.judging.values import judge_values, lowest_and_highest
from analysis.statistics import VERDICT_LEVEL, judge
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


def test_a_missing_seed_of_an_order_takes_the_extreme_steps() -> None:
    values = np.array([[0.0, 1.0, 3.0], [5.0, 7.0, 8.0], [math.nan, 1.0, 2.0]])
    low, high = lowest_and_highest(values)
    # Steps of the known seeds: 1, 2 and 2, 1.
    assert np.diff(low[2]).tolist() == [1.0, 1.0]
    assert np.diff(high[2]).tolist() == [2.0, 2.0]
    assert (low[:2] == values[:2]).all()
