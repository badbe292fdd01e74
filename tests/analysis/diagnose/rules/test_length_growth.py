from __future__ import annotations

import numpy as np


def test_growth_without_reward(findings, noise):
    columns = {
        "length/mean": np.linspace(300, 600, 60) + 5 * noise(size=60),
        "reward/mean": 0.4 + 0.01 * noise(size=60),
    }
    (found,) = findings("length-growth", columns)
    assert found.level == "warning"
    columns["length/mean"] = np.linspace(300, 1200, 60)
    (found,) = findings("length-growth", columns)
    assert found.level == "problem"


def test_growth_with_reward_is_what_reasoning_does(findings, noise):
    columns = {"length/mean": np.linspace(300, 700, 60) + 5 * noise(size=60), "reward/mean": np.linspace(0.2, 0.6, 60)}
    assert findings("length-growth", columns) == []


def test_lengths_that_stay_are_fine(findings, noise):
    assert findings("length-growth", {"length/mean": 300 + 20 * noise(size=60), "reward/mean": np.full(60, 0.4)}) == []
