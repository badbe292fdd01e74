from __future__ import annotations

import numpy as np


def columns(evaluation, noise, rows=60):
    return {"reward/mean": np.linspace(0.2, 0.8, rows) + 0.01 * noise(size=rows), "evaluation/reward": evaluation}


def test_an_evaluation_that_falls_while_rewards_rise(findings, noise):
    held = np.r_[np.linspace(0.2, 0.5, 6), np.linspace(0.48, 0.2, 6)]
    (found,) = findings("reward-against-evaluation", columns(held, noise))
    assert found.level == "problem"
    assert 5 <= found.since <= 8


def test_an_evaluation_that_rises_too(findings, noise):
    assert findings("reward-against-evaluation", columns(np.linspace(0.2, 0.5, 12), noise)) == []


def test_noise_of_the_evaluation_is_none(findings, noise):
    assert findings("reward-against-evaluation", columns(0.4 + 0.03 * noise(size=12), noise)) == []


def test_four_evaluations_are_too_few(findings, noise):
    assert findings("reward-against-evaluation", columns(np.array([0.5, 0.4, 0.3, 0.1]), noise)) == []
