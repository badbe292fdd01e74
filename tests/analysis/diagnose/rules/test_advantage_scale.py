from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("size", "level"), [(3.75, None), (30.0, "warning"), (7428.0, "problem")])
def test_the_level_follows_the_largest_advantage(findings, size, level):
    advantages = np.full(20, 2.0)
    advantages[12] = size
    found = findings("advantage-scale", {"advantage/max": advantages})
    assert [item.level for item in found] == ([] if level is None else [level])
    assert all(item.since == 13 for item in found)


def test_a_group_bounds_its_own_advantages(findings):
    # A standardised group of 16 has no advantage above sqrt(15) = 3.87.
    given = {"actor_rollout_ref.rollout.n": 16}
    (found,) = findings("advantage-scale", {"advantage/max": np.full(20, 9.0)}, **given)
    assert found.level == "warning"
    assert "3.87" in found.statement


def test_large_rewards_that_are_only_centred_are_fine(findings):
    columns = {"advantage/max": np.full(20, 80.0), "reward/max": np.full(20, 100.0)}
    assert findings("advantage-scale", columns) == []


def test_negative_ones_count(findings):
    (found,) = findings("advantage-scale", {"advantage/min": np.full(20, -500.0)})
    assert found.level == "problem"
