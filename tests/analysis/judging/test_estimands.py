from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.judging.estimands import drawdown, final, largest, quotient, relative_change, rise
from analysis.trajectories import Trajectories


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
