from __future__ import annotations

import numpy as np


def test_a_rise_to_four_times_is_a_problem(findings, noise):
    entropy = np.r_[np.full(30, 0.5), np.linspace(0.5, 2.0, 30)] + 0.01 * noise(size=60)
    (found,) = findings("entropy-explosion", {"entropy/mean": entropy})
    assert found.level == "problem"
    assert 24 <= found.since <= 40


def test_a_rise_by_a_half_is_fine(findings, noise):
    assert findings("entropy-explosion", {"entropy/mean": np.linspace(0.5, 0.75, 60) + 0.01 * noise(size=60)}) == []


def test_the_cause_is_the_class_of_tokens_that_is_removed(findings, noise):
    rows = 60
    columns = {
        "entropy/mean": np.linspace(0.3, 2.0, rows) + 0.01 * noise(size=rows),
        "clip/high_fraction": np.full(rows, 0.001),
        "clip/low_fraction": np.full(rows, 0.02),
    }
    (found,) = findings("entropy-explosion", columns)
    assert "what lowers entropy" in found.extra["cause"]


def test_an_entropy_bonus_is_named(findings, noise):
    columns = {"entropy/mean": np.linspace(0.3, 2.0, 60) + 0.01 * noise(size=60)}
    (found,) = findings("entropy-explosion", columns, **{"actor_rollout_ref.actor.entropy_coeff": 0.01})
    assert "entropy bonus of 0.01" in found.statement
