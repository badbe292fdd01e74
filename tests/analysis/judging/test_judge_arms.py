"""From trajectories by hand to a result, without a simulation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from analysis.claims import ExactClaim
from analysis.judging.arms import run_arms
from analysis.judging.claim import Falsifier, Null, StatisticalClaim
from analysis.judging.estimands import average, difference, final, in_order, time_to
from analysis.judging.result import ClaimResult
from analysis.judging.run import judge_arms, run_claim
from analysis.statistics import VERDICT_LEVEL, interval, judge, monotone_trend, survival
from analysis.trajectories import Trajectories
from tests.analysis.judging.small import QUICK, SHARED, small_claim, trajectories

REACHED, SABOTAGED = (np.random.default_rng(9).normal(mean, 0.05, 24).tolist() for mean in (0.75, 0.1))
"""What the large step, and its sabotaged variant, end with in 24 seeds; the tiny one ends with 0.1."""
TINY = [0.1] * 24


def arm(reached: list[float], *, norm: float = 1.0, ones: float = 0.5, clipped: float = 0.1) -> Trajectories:
    """Two rollouts; sampled metrics are missing before the first, as in a run."""
    seeds = len(reached)
    sampled: dict[str, Any] = {"gradient__norm": norm, "ratio__one_fraction": ones, "clip__fraction": clipped}
    return trajectories(
        exact__return=[[0.0] * seeds, [value / 2 for value in reached], reached],
        **{name: [[math.nan] * seeds, [value] * seeds, [value] * seeds] for name, value in sampled.items()},
    )


def judged(claim: StatisticalClaim | None = None, **arms: Trajectories) -> ClaimResult:
    runs = {"large": arm(REACHED), "tiny": arm(TINY)} | arms
    sabotaged = runs | {"large": arm(SABOTAGED)}
    return judge_arms(small_claim(notes=("a note",)) if claim is None else claim, runs, sabotaged, 7)


def test_a_result_holds_what_the_arms_show() -> None:
    claim = small_claim(
        notes=("a note",),
        controls=(difference(average("exact/return"), of="large", minus="tiny"),),
        curves=("exact/return", "clip/fraction"),
    )
    result = judged(claim)
    values = [value - 0.1 for value in REACHED]
    own = judge(values, "greater", 0.05, claim.level)
    assert result.verdict == own.verdict == "reproduced"
    assert result.interval == (pytest.approx(own.low), pytest.approx(own.high))
    assert own.low < own.high
    assert (result.estimate, result.level) == (pytest.approx(sum(values) / 24), claim.level)
    assert result.per_seed == pytest.approx(values)
    wrong = judge([value - 0.1 for value in SABOTAGED], "greater", 0.05, claim.level)
    assert result.falsifier.estimate == pytest.approx(wrong.estimate)
    assert result.falsifier.interval == (pytest.approx(wrong.low), pytest.approx(wrong.high))
    assert result.falsifier.verdict == wrong.verdict
    # Mean over both rollouts: three quarters of the difference in what was reached.
    bounds = interval([0.75 * value for value in values], VERDICT_LEVEL)
    (control,) = result.controls
    assert control.interval == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert control.estimate == pytest.approx(bounds.estimate)
    assert [figure["title"] for figure in result.curves] == ["exact/return", "clip/fraction"]
    assert result.protocol_hash == claim.protocol_hash(24, 7)
    assert (result.notes, result.seeds, result.seeds_needed) == (("a note",), 24, None)
    assert result.p_value is not None
    assert result.p_value < 0.01


def test_an_open_result_says_how_many_seeds_would_settle_it() -> None:
    result = judged(small_claim(threshold=judged().estimate - 0.001))
    assert result.verdict == "inconclusive"
    assert result.seeds_needed is not None
    assert result.seeds_needed > 24


def test_one_arm_without_a_gradient_is_vacuous() -> None:
    result = judged(tiny=arm(TINY, norm=0.0))
    assert (result.verdict, result.reason) == ("vacuous", "every gradient of arm tiny was zero")


def test_ratios_of_one_are_vacuous_in_all_arms_only() -> None:
    assert judged(tiny=arm(TINY, ones=1.0)).verdict == "reproduced"
    result = judged(tiny=arm(TINY, ones=1.0), large=arm(REACHED, ones=1.0))
    assert (result.verdict, result.reason) == ("vacuous", "every probability ratio was 1")


def test_a_mechanism_has_to_act_in_its_arm() -> None:
    claim = small_claim(acts=(("tiny", "clip/fraction"),))
    assert judged(claim).verdict == "reproduced"
    assert judged(claim, large=arm(REACHED, clipped=0.0)).verdict == "reproduced"
    result = judged(claim, tiny=arm(TINY, clipped=0.0))
    assert (result.verdict, result.reason) == (
        "vacuous",
        "clip/fraction of arm tiny was never above 0, so the mechanism under test did not act",
    )


def test_a_falsifier_that_passes_breaks_the_claim_and_a_refuted_one_does_not() -> None:
    assert judged(small_claim(threshold=-0.5)).verdict == "broken"
    assert judged().falsifier.verdict != "reproduced"


def test_waiting_times_are_those_of_the_survival_curve() -> None:
    claim = small_claim(
        estimand=difference(time_to("exact/return", 0.4), of="large", minus="tiny"), direction="less", threshold=-0.25
    )
    six = {"large": arm([0.9, 0.8, 0.7, 0.9, 0.6, 0.8]), "tiny": arm([0.1] * 6)}
    result = judge_arms(claim, six, six, 7)
    # 0.4 is reached after one rollout where the half of what is reached is enough, else after two; tiny never does.
    times, seen = [1.0, 1.0, 2.0, 1.0, 2.0, 1.0], [True] * 6
    curve = survival(times, seen, level=VERDICT_LEVEL)
    assert result.event_times is not None
    large, tiny = result.event_times["large"], result.event_times["tiny"]
    assert (large.events, large.seeds, tiny.events) == (6, 6, 0)
    assert (large.median, large.restricted_mean, large.horizon) == (1.0, pytest.approx(8 / 6), 2.0)
    assert large.median_interval == (curve.median.low, curve.median.high)
    assert tiny.median == math.inf
    (figure,) = [item for item in result.curves if item["title"].startswith("Kaplan-Meier")]
    drawn = {series["label"]: series for series in figure["series"]}["large"]
    assert drawn["x"] == [0.0, 1.0, 2.0]
    assert drawn["mean"] == pytest.approx([1.0, 2 / 6, 0.0])
    assert drawn["low"] == [1.0, *curve.low]
    assert drawn["high"] == [1.0, *curve.high]


def test_an_order_of_three_says_whether_a_trend_is_visible() -> None:
    claim = small_claim(
        arms={name: {"objective": "ppo"} for name in ("tiny", "middle", "large")},
        estimand=in_order(final("exact/return"), ["tiny", "middle", "large"]),
        statistic="smallest step",
    )
    runs = {"tiny": arm(TINY), "middle": arm([value - 0.4 for value in REACHED]), "large": arm(REACHED)}
    result = judge_arms(claim, runs, runs | {"large": arm(TINY)}, 7)
    rows = [[0.1, value - 0.4, value] for value in REACHED]
    assert result.trend_p_value == monotone_trend(rows, "increasing")
    assert result.per_seed[0] == pytest.approx(rows[0])


def test_the_null_is_the_same_arms_in_another_setting() -> None:
    estimand = difference(final("exact/entropy"), of="large", minus="tiny")
    result = run_claim(small_claim(null=Null({"env": "NullBandit-v1(arms=8,contexts=2)"}, estimand)), seeds=6)
    claim = small_claim()
    unrewarded = run_arms(QUICK | {"env": "NullBandit-v1(arms=8,contexts=2)"}, claim.arms, 6, 2001)
    bounds = interval(estimand.compute(unrewarded), VERDICT_LEVEL)
    assert result.null is not None
    assert result.null.setting == {"env": "NullBandit-v1(arms=8,contexts=2)"}
    assert result.null.reading.interval == (bounds.low, bounds.high)
    assert bounds.low < bounds.high
    # What is added to a run beside what its arms show.
    assert result.reproduce == "testbed verify test/large-steps --seeds 6 --seed 2001"
    assert result.setting["arm tiny"] == "objective=ppo, learning_rate=0.01"
    assert result.setting["steps"] == "6"
    assert 0 < result.seconds < 600


def test_an_exact_result_is_two_deviations_and_a_tolerance() -> None:
    claim = ExactClaim(
        **SHARED,
        id="test/exact",
        measure=lambda: 0.25,
        tolerance=0.5,
        falsifier=Falsifier("off by two", measure=lambda: 2.0),
        notes=("a note",),
    )
    result = run_claim(claim, seed=5)
    assert (result.estimate, result.threshold, result.falsifier.estimate) == (0.25, 0.5, 2.0)
    assert (result.verdict, result.falsifier.verdict, result.falsifier.interval) == ("reproduced", "refuted", None)
    assert (result.interval, result.level, result.seeds, result.direction) == (None, None, None, "identity")
    assert result.protocol_hash == claim.protocol_hash(None, 5) != claim.protocol_hash(None, 0)
    assert result.notes == ("a note",)
    assert result.reproduce == "testbed verify test/exact"
    assert run_claim(dataclasses.replace(claim, tolerance=0.125)).verdict == "refuted"
