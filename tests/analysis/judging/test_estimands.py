"""Measures and estimands, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.judging.estimands import (
    at_matched,
    average,
    between,
    contrast,
    difference,
    drawdown,
    exceeds,
    final,
    in_order,
    largest,
    quotient,
    relative_change,
    rise,
    roughness,
    slope,
    time_to,
    value_of,
    within,
)
from analysis.trajectories import Trajectories
from tests.analysis.judging.small import trajectories


def one_seed(values: list[float]) -> Trajectories:
    rows = [
        {"objective": "o", "replica": 0, "seed": 0, "step": step, "updates": step, "m": value}
        for step, value in enumerate(values)
    ]
    return Trajectories(pd.DataFrame(rows))


# The first rollout does not count; then a doubling, a halving and no change: log 2, log 2 and 0.
RUN = one_seed([9.0, 1.0, 2.0, 1.0, 1.0])


def test_relative_change_is_a_mean_of_absolute_log_ratios() -> None:
    assert relative_change("m").read(RUN)[0] == pytest.approx(2 / 3 * math.log(2), rel=1e-12)


@pytest.mark.parametrize(("quantile", "expected"), [(0.0, 0.0), (0.25, 0.5 * math.log(2)), (1.0, math.log(2))])
def test_relative_change_at_a_quantile(quantile: float, expected: float) -> None:
    # Sorted 0, log 2, log 2: the 0.25 quantile lies halfway between the first two.
    assert relative_change("m", quantile).read(RUN)[0] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_relative_change_says_which_statistic_it_is() -> None:
    assert relative_change("m").description.startswith("mean of")
    assert relative_change("m", 0.95).description.startswith("0.95 quantile of")


def test_quotient_divides_two_measures_of_one_arm() -> None:
    # The last value is 1, the largest after the first rollout 2.
    measure = quotient(final("m"), largest("m"))
    assert measure.read(RUN)[0] == pytest.approx(0.5, rel=1e-12)
    assert measure.description == "(m after the last step) / (largest m of any step)"


def test_drawdown_is_the_deepest_fall_below_an_earlier_value() -> None:
    # 3 → 1 is the fall of the best so far; from 4 it only falls by 1.
    assert drawdown("m").read(one_seed([2.0, 3.0, 1.0, 4.0, 3.0]))[0] == 2.0
    assert drawdown("m").read(one_seed([1.0, 2.0, 2.0]))[0] == 0.0


def test_rise_is_measured_from_the_start_and_never_negative() -> None:
    assert rise("m").read(one_seed([2.0, 1.0, 2.5, 0.0]))[0] == 0.5
    assert rise("m").read(one_seed([2.0, 1.0]))[0] == 0.0


# Two seeds over four steps; row 0 is the initial policy, where sampled metrics are missing.
TWO_SEEDS = trajectories(
    exact__entropy=[[4.0, 4.0], [3.0, 2.0], [2.0, 1.0], [0.0, 1.0]],
    exact__return=[[0.0, 0.0], [0.5, 0.2], [0.75, 0.4], [1.0, 0.6]],
    clip__fraction=[[math.nan, math.nan], [0.1, 0.0], [0.2, math.nan], [0.3, 0.4]],
)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (final("exact/entropy"), [0.0, 1.0]),
        (average("exact/entropy"), [5 / 3, 4 / 3]),
        # The missing step of the second seed is left out, not counted as 0.
        (average("clip/fraction"), [0.2, 0.2]),
        (largest("clip/fraction"), [0.3, 0.4]),
        # Return 0.6 is 0.4 of the way from 0.5 (H = 3) to 0.75 (H = 2), and the second seed's last value.
        (at_matched("exact/entropy", "exact/return", 0.6), [2.6, 1.0]),
        (at_matched("exact/entropy", "exact/return", 0.9), [0.8, math.nan]),
        (exceeds(largest("clip/fraction"), 0.35), [0.0, 1.0]),
        # One second difference each: 0 - 2·2 + 3 and 1 - 2·1 + 2; a single number has no spread.
        (roughness("exact/entropy"), [0.0, 0.0]),
    ],
)
def test_measures_by_hand(measure: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(measure.read(TWO_SEEDS), expected, rtol=1e-12, atol=1e-15)


def test_roughness_of_a_zigzag() -> None:
    # After the first rollout 0, 1, 0, 1: second differences -2 and 2, standard deviation 2.
    run = trajectories(m=[[9.0], [0.0], [1.0], [0.0], [1.0]])
    assert roughness("m").read(run)[0] == pytest.approx(2.0)


def test_estimands_by_hand() -> None:
    other = trajectories(exact__entropy=[[4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [1.0, 3.0]])
    runs = {"a": TWO_SEEDS, "b": other}
    assert difference(final("exact/entropy"), of="a", minus="b").compute(runs).tolist() == [-1.0, -2.0]
    assert contrast(final("exact/entropy"), of="a", minus="b", times=2.0).compute(runs).tolist() == [-2.0, -5.0]
    assert between(final("exact/return"), final("exact/entropy"), arm="a").compute(runs).tolist() == [1.0, -0.4]
    assert "2 × [b]" in contrast(final("exact/entropy"), of="a", minus="b", times=2.0).description


def test_between_may_weigh_its_second_measure() -> None:
    weighed = between(final("exact/return"), final("exact/entropy"), arm="a", times=0.5)
    assert weighed.compute({"a": TWO_SEEDS}) == pytest.approx([1.0, 0.1], rel=1e-12)
    assert weighed.description == "[a] exact/return after the last step - 0.5 × exact/entropy after the last step"


def test_a_factor_of_one_is_not_said() -> None:
    assert difference(final("m"), of="a", minus="b").description == "[a] - [b] of: m after the last step"
    assert between(final("m"), final("n"), arm="a").description == "[a] m after the last step - n after the last step"


def test_the_slope_is_that_of_a_straight_line_per_step_without_the_first_rollout() -> None:
    # 1, 2, 6 at steps 1, 2, 3: Σ (s - 2)(m - 3) / Σ (s - 2)² = (2 + 0 + 3) / 2.
    assert slope("m").read(one_seed([90.0, 1.0, 2.0, 6.0]))[0] == pytest.approx(2.5, rel=1e-12)


def test_the_largest_value_is_sought_after_the_first_rollout() -> None:
    assert largest("m").read(one_seed([9.0, 5.0, 3.0, 4.0]))[0] == 5.0
    assert math.isnan(largest("m").read(one_seed([9.0, math.nan, math.nan]))[0])


def test_missing_steps_never_stand_for_zero() -> None:
    # A seed all of whose values are missing has no mean and no largest value.
    assert largest("m").read(one_seed([0.0, -2.0, -1.0]))[0] == -1.0
    assert math.isnan(average("m").read(one_seed([1.0, math.nan, math.nan]))[0])


@pytest.mark.parametrize(
    ("falling", "level", "expected", "seen"),
    [
        # At the level counts as reached, on either side.
        (False, 3.0, 1.0, True),
        (True, 1.0, 2.0, True),
        (False, 2.0, 0.0, True),
        # Never: the run's length, and said to be so.
        (False, 7.0, 4.0, False),
        (True, 0.5, 4.0, False),
    ],
)
def test_time_to_a_level(falling: bool, level: float, expected: float, seen: bool) -> None:
    run = one_seed([2.0, 3.0, 1.0, 5.0, 2.0])
    measure = time_to("m", level, falling=falling)
    assert measure.read(run)[0] == expected
    assert measure.event is not None
    times, reached = measure.event.read(run)
    assert (times[0], bool(reached[0])) == (expected, seen)


def test_a_level_is_reached_from_below_unless_said_otherwise() -> None:
    assert time_to("m", 3.0).read(one_seed([0.0, 1.0, 3.0]))[0] == 2.0


def test_a_level_is_exceeded_where_it_is_reached() -> None:
    assert exceeds(final("m"), 2.0).read(one_seed([0.0, 2.0]))[0] == 1.0


def test_at_matched_interpolates_within_its_own_step() -> None:
    # The reference goes 0, 0, 4: level 1 is a quarter of the last step, from 10 to 30. At the start already: its value.
    run = trajectories(m=[[0.0, 7.0], [10.0, 8.0], [30.0, 9.0]], r=[[0.0, 5.0], [0.0, 6.0], [4.0, 7.0]])
    assert at_matched("m", "r", 1.0).read(run).tolist() == [15.0, 7.0]


def test_at_matched_from_the_first_step_on() -> None:
    # Half of the first step, from 2 to 4, and not of a later one.
    run = trajectories(m=[[2.0], [4.0], [9.0]], r=[[0.0], [2.0], [4.0]])
    assert at_matched("m", "r", 1.0).read(run).tolist() == [3.0]


def test_arms_stand_in_the_claimed_order_in_the_last_axis() -> None:
    runs = {"low": one_seed([0.0, 1.0]), "high": one_seed([0.0, 2.0])}
    assert in_order(final("m"), ["high", "low"]).compute(runs).tolist() == [[2.0, 1.0]]


def test_a_declared_support_is_kept_and_said() -> None:
    declared = within(value_of(final("m"), "a"), 0.0, 1.0)
    assert declared.support == (0.0, 1.0)
    assert declared.description == "[a] m after the last step, in [0, 1]"


def test_measures_and_estimands_cannot_be_written_to() -> None:
    for item in (final("m"), value_of(final("m"), "a"), time_to("m", 1.0).event):
        with pytest.raises(AttributeError, match="cannot assign"):
            item.description = "other"  # type: ignore[union-attr,misc]


def test_an_estimand_measures_every_arm_alike_unless_it_says_otherwise() -> None:
    assert value_of(final("m"), "a").alike
