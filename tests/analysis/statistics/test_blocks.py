from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics import VERDICT_LEVEL, block_length, block_means, interval


def autoregression(correlation: float, count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(count + 100)
    values = np.zeros(count + 100)
    for index in range(1, count + 100):
        values[index] = correlation * values[index - 1] + noise[index]
    return values[100:]


def test_length_by_hand():
    # ρ of the residuals is 0.8 to within its error of 0.02: (1.6/0.36)^(2/3)·1000^(1/3) = 27.0.
    assert block_length(autoregression(0.8, 1000, 0)) == pytest.approx(27, abs=4)


@pytest.mark.parametrize("values", [np.arange(50.0), np.ones(30), np.arange(7.0), [1.0, -1.0] * 20])
def test_a_trend_and_too_few_values_have_no_blocks(values):
    assert block_length(values) == 1


def test_a_trend_does_not_count_but_what_is_around_it_does():
    noise = autoregression(0.8, 400, 1)
    assert block_length(noise + 0.5 * np.arange(400)) == block_length(noise) > 1


@pytest.mark.parametrize(("count", "means"), [(4, [1.5, 3.5]), (5, [1.5, 3.5, 5.0]), (3, [1.5, 3.0])])
def test_means(count, means):
    assert block_means(np.arange(1.0, count + 1), 2).tolist() == means


def test_a_short_rest_joins_the_block_before():
    # Seven values in blocks of three: the rest of one is less than half a block.
    assert block_means(np.arange(7.0), 3).tolist() == [1.0, 4.5]


def test_blocks_make_an_interval_that_covers():
    # 99 % intervals of the mean of a process with ρ = 0.7, whose mean is 0: plain ones miss it far too often.
    missed = {"plain": 0, "blocks": 0}
    for seed in range(60):
        values = autoregression(0.7, 200, seed)
        for name, sample in (("plain", values), ("blocks", block_means(values, block_length(values)))):
            bounds = interval(sample, VERDICT_LEVEL)
            missed[name] += not bounds.low <= 0 <= bounds.high
    # Nominal 0.6 of 60; plain intervals are 2.4 times too short and miss about 17.
    assert missed["blocks"] <= 4
    assert missed["plain"] >= 10
