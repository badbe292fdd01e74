from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.diagnose.onset import FALSE_ALARM_RATE, change_point, critical, floor_crossing


def correlated(draw, points, correlation):
    noise = draw.normal(size=points + 50)
    values = np.zeros(points + 50)
    for place in range(1, len(values)):
        values[place] = correlation * values[place - 1] + noise[place]
    return values[50:]


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_false_alarms_are_as_rare_as_stated(correlation):
    # 400 curves at a rate of 1 %: more than 10 would happen with probability 0.003.
    draw = np.random.default_rng(1)
    found = sum(change_point(np.arange(60), correlated(draw, 60, correlation)) is not None for _ in range(400))
    assert found <= 10
    assert FALSE_ALARM_RATE == 0.01


@pytest.mark.parametrize("shape", ["step", "ramp"])
def test_a_change_is_found_where_it_is(shape):
    draw = np.random.default_rng(2)
    at = np.arange(100)
    signal = np.where(at < 60, 0.0, 6.0) if shape == "step" else np.maximum(at - 60, 0) * 0.3
    found = change_point(10 * at, signal + correlated(draw, 100, 0.3))
    assert found is not None
    assert abs(found.step - 600) <= 150


def test_a_single_wild_value_is_no_change():
    draw = np.random.default_rng(3)
    values = draw.normal(size=60)
    values[30] = 1e6
    assert change_point(np.arange(60), values) is None


def test_constants_and_short_curves_have_none():
    assert change_point(np.arange(50), np.ones(50)) is None
    assert change_point(np.arange(8), np.r_[np.zeros(4), np.ones(4)]) is None
    assert change_point(np.arange(30), np.full(30, np.nan)) is None


def test_many_points_are_averaged():
    draw = np.random.default_rng(4)
    at = np.arange(50_000)
    found = change_point(at, np.where(at < 30_000, 0.0, 1.0) + draw.normal(size=50_000))
    assert found is not None
    assert abs(found.step - 30_000) < 2000


def test_the_limit_is_that_of_a_brownian_bridge_for_long_curves():
    # P(sup |B| > x) = 2·sum (-1)^(k+1) exp(-2k²x²) is 0.01 at x = 1.628.
    chance = 2 * sum((-1) ** (k + 1) * math.exp(-2 * k**2 * critical(10**9) ** 2) for k in range(1, 5))
    assert chance == pytest.approx(0.01, rel=0.02)  # 1.63 is rounded


def test_the_interval_of_the_crossing_holds_it_nine_times_in_ten():
    # 1 - 0.02·t = 0.1 at t = 45, six steps after the last of 40. Of 200 intervals at 90 %, 170 and more hold it with
    # probability 0.99.
    draw = np.random.default_rng(5)
    at = np.arange(40.0)
    found = [floor_crossing(at, 1 - 0.02 * at + 0.01 * draw.normal(size=40), 0.1) for _ in range(200)]
    held = [item for item in found if item is not None and item.low <= 6 <= item.high]
    assert len(held) >= 170


@pytest.mark.parametrize("shape", ["step", "ramp"])
def test_the_interval_of_the_onset_holds_it(shape):
    draw = np.random.default_rng(7)
    at = np.arange(100)
    held = 0
    for _ in range(60):
        place = int(draw.integers(30, 70))
        signal = np.where(at < place, 0.0, 6.0) if shape == "step" else np.maximum(at - place + 1, 0) * 0.3
        found = change_point(at, signal + correlated(draw, 100, 0.3))
        held += found is not None and found.low <= place <= found.high
    # Of 60 at 90 %, 47 and more hold it with probability 0.995.
    assert held >= 47


def test_a_fall_that_has_stopped_and_a_rise_have_no_crossing():
    draw = np.random.default_rng(6)
    at = np.arange(40.0)
    assert floor_crossing(at, 0.5 + 0.01 * draw.normal(size=40), 0.1) is None
    assert floor_crossing(at, 0.5 + 0.01 * at, 0.1) is None
    assert floor_crossing(at, 0.05 + 0.0 * at, 0.1) is None
