"""Orders by their smallest step, and Page's test by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import decide, monotone_trend, order_p_value, smallest_step
from testbed.errors import ConfigError


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


def test_a_step_that_is_the_same_in_every_seed_is_no_order():
    table = (
        np.random.default_rng(0).normal(size=(30, 1))
        + np.array([0.0, 1.0, 1.0])
        + 1e-3 * np.random.default_rng(1).normal(size=(30, 3))
    )
    table[:, 2] = table[:, 1] + 0.25
    step = smallest_step(table, level=0.99)
    # The other step, about 1, bounds the smallest one from above.
    assert step.estimate == pytest.approx(0.25, rel=1e-12)
    assert step.low == -math.inf
    assert 0.9 < step.high < 1.1
    # At half the error, the corrected one: log 0.0025 / log 0.99 = 596.2.
    assert step.seeds_needed == 597
    assert decide(step, "greater").verdict == "inconclusive"
    assert order_p_value(table) == 0.5
    # Every step in [-1, 1] or so: at most 16 % of them elsewhere, 1.5 away.
    known = smallest_step(table, level=0.99, support=(-1.25, 1.25))
    assert known.low == pytest.approx(0.25 - 1.5 * (1 - 0.005 ** (1 / 30)), rel=1e-9)
    assert order_p_value(table, support=(-1.25, 1.25)) == pytest.approx((1 - 0.25 / 1.5) ** 30, rel=1e-4)


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
