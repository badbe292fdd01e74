"""Verdicts by truth table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import Interval, decide, judge, judge_identity, proportion_interval, seeds_needed
from testbed.errors import ConfigError


def normal(seeds: int, mean: float = 0.0, scale: float = 1.0, stream: int = 0) -> np.ndarray:
    return np.random.default_rng(stream).normal(mean, scale, seeds)


@pytest.mark.parametrize(
    ("direction", "threshold", "low", "high", "verdict", "opposite"),
    [
        ("greater", 0.1, 0.2, 0.4, "reproduced", False),
        ("greater", 0.1, 0.05, 0.4, "inconclusive", False),
        ("greater", 0.1, -0.05, 0.05, "refuted", False),
        ("greater", 0.1, -0.4, -0.2, "refuted", True),
        ("greater", 0.1, -0.4, 0.2, "inconclusive", False),
        ("greater", 0.1, 0.1, 0.4, "inconclusive", False),
        ("greater", 0.1, -0.05, 0.1, "inconclusive", False),
        ("greater", 0.1, -0.4, -0.1, "refuted", False),
        ("greater", -0.1, -0.05, 0.05, "reproduced", False),
        ("less", -0.1, -0.4, -0.2, "reproduced", False),
        ("less", -0.1, -0.4, -0.05, "inconclusive", False),
        ("less", -0.1, -0.05, 0.05, "refuted", False),
        ("less", -0.1, 0.2, 0.4, "refuted", True),
        ("less", -0.1, -0.4, -0.1, "inconclusive", False),
        ("less", -0.1, -0.1, 0.4, "inconclusive", False),
        ("less", -0.1, 0.1, 0.4, "refuted", False),
        ("less", 0.0, 0.2, 0.4, "refuted", True),
        ("equivalent", 0.1, -0.05, 0.05, "reproduced", False),
        ("equivalent", 0.1, -0.05, 0.15, "inconclusive", False),
        ("equivalent", 0.1, 0.15, 0.3, "refuted", False),
        ("equivalent", 0.1, -0.3, -0.15, "refuted", False),
        ("equivalent", 0.1, -0.3, 0.3, "inconclusive", False),
        ("equivalent", 0.1, -0.1, 0.05, "inconclusive", False),
        ("equivalent", 0.1, -0.05, 0.1, "inconclusive", False),
        ("equivalent", 0.1, -0.3, -0.1, "inconclusive", False),
        ("equivalent", 0.1, 0.1, 0.3, "inconclusive", False),
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
    values = normal(20, 0.2, 1.0, stream=4)
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
    # A lopsided one: 0.4 down and 1 up. Towards 0.25 the lower width counts, 20 (0.4/0.25)² = 51.2, towards 0.75 the
    # upper one, 20 (1/0.25)² = 320, and of an equivalence with the estimate inside the larger of both.
    lopsided = Interval(0.5, 0.1, 1.5, 0.9, "t", 20)
    assert decide(lopsided, "greater", 0.25).seeds_needed == 53
    assert decide(lopsided, "less", 0.75).seeds_needed == 321
    assert decide(lopsided, "equivalent", 0.75).seeds_needed == 321
    assert decide(lopsided, "equivalent", 0.25).seeds_needed == 53
    mirrored = Interval(-0.5, -1.5, -0.1, 0.9, "t", 20)
    assert decide(mirrored, "equivalent", 0.75).seeds_needed == 321
    assert decide(mirrored, "equivalent", 0.25).seeds_needed == 53
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
