from __future__ import annotations

import numpy as np
import pytest

from analysis.diagnose.series import CAPACITY, NULL, Recording, Series


def test_merging_keeps_means_extremes_and_what_was_not_finite():
    merged = Series.of("x", range(6), [1.0, 3.0, float("nan"), 5.0, 7.0, 2.0]).merged(3)
    # Pairs: (1, 3), (nan, 5), (7, 2).
    assert merged.values.tolist() == [2.0, 5.0, 4.5]
    assert merged.low.tolist() == [1.0, 5.0, 2.0]
    assert merged.high.tolist() == [3.0, 5.0, 7.0]
    assert merged.bad.tolist() == [0, 1, 0]
    assert merged.counts.tolist() == [2, 2, 2]


def test_a_negative_factor_swaps_the_extremes():
    scaled = Series.of("x", range(2), [1.0, 3.0]).merged(1).scaled(-1)
    assert (scaled.low.tolist(), scaled.values.tolist(), scaled.high.tolist()) == ([-3.0], [-2.0], [-1.0])


def test_a_long_recording_is_bounded_and_loses_no_extreme():
    recording = Recording("x")
    n = 10 * CAPACITY
    values = np.zeros(n)
    values[n // 3] = 99.0
    for start in range(0, n, 5000):
        part = np.arange(start, min(start + 5000, n))
        recording.add(part.astype(float), values[part])
    series = recording.series(null_is_bad=False)
    assert len(series) <= 2 * CAPACITY
    assert series.high.max() == 99.0
    assert series.counts.sum() == n


def test_a_null_is_what_the_caller_says():
    recording = Recording("x")
    recording.add(np.array([1.0, 2.0, 3.0]), np.array([0.5, NULL, 0.7]))
    assert recording.series(null_is_bad=True).bad.tolist() == [0, 1, 0]
    assert recording.series(null_is_bad=False).steps.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("start", [0, 40_000])
def test_a_resume_replaces_what_it_repeats(start):
    recording = Recording("x")
    recording.add(np.arange(100_000.0), np.zeros(100_000))
    recording.add(np.arange(float(start), 100_000.0), np.ones(100_000 - start))
    series = recording.series(null_is_bad=False)
    assert recording.backward
    assert series.values[-1] == 1.0
    assert series.values[series.steps > start + 10].mean() > 0.99
