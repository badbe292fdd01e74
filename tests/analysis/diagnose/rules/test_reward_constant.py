from __future__ import annotations

import numpy as np


def test_the_same_reward_to_the_last_digit_is_a_problem(findings):
    (found,) = findings("reward-constant", {"reward/mean": np.full(12, 0.1)})
    assert (found.level, found.since) == ("problem", 1)


def test_a_reward_that_stops_to_vary_has_its_onset(findings, noise):
    rewards = [*(0.5 + 0.01 * noise(size=30)), *[0.0] * 15]
    (found,) = findings("reward-constant", {"reward/mean": rewards})
    assert (found.level, found.since) == ("problem", 31)


def test_saturation_is_left_to_the_rule_on_dead_groups(findings):
    columns = {"reward/mean": [*np.linspace(0.1, 0.9, 20), *[1.0] * 20], "group/zero_variance_fraction": np.ones(40)}
    assert findings("reward-constant", columns) == []


def test_a_varying_reward_is_fine(findings, noise):
    assert findings("reward-constant", {"reward/mean": 0.5 + 0.01 * noise(size=30)}) == []


def test_seven_rows_are_too_few(findings):
    assert findings("reward-constant", {"reward/mean": np.full(7, 0.1)}) == []
