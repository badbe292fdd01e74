from __future__ import annotations

import numpy as np


def test_one_spike_is_a_warning_and_a_huge_one_a_problem(findings, noise):
    norm = 0.3 * np.exp(0.2 * noise(size=60))
    norm[30] = 8.0
    (found,) = findings("gradient-spike", {"gradient/norm": norm})
    assert (found.level, found.since) == ("warning", 31)
    norm[30] = 80.0
    (found,) = findings("gradient-spike", {"gradient/norm": norm})
    assert found.level == "problem"


def test_a_level_that_stays_up_is_a_problem(findings, noise):
    norm = np.where(np.arange(60) < 30, 0.3, 6.0) * np.exp(0.2 * noise(size=60))
    (found,) = findings("gradient-spike", {"gradient/norm": norm})
    assert (found.level, found.since) == ("problem", 31)
    assert "stays up" in found.statement


def test_heavy_noise_is_none(findings, noise):
    # A log-normal of standard deviation 0.6: ten times the median is 3.8 deviations, and it is not enough.
    assert findings("gradient-spike", {"gradient/norm": np.exp(0.6 * noise(size=2000))}) == []
