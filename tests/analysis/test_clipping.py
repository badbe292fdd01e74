"""What a run says when clipping never acted in it."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.clipping import corners, unclipped, unclipped_corners
from testbed.simulation import Sweep, simulate

BANDIT: dict[str, Any] = {"env": "RareArm-v1(arms=8,contexts=2)", "seeds": 2, "steps": 3, "group_size": 8}


def test_objectives_that_never_clipped_are_named_with_what_to_raise() -> None:
    # One step of size η moves a logit by at most η·√G/(P·G) and a ratio's logarithm by twice that: 1e-3 at η = 1e-3.
    run = simulate(["dapo", "ppo", "reinforce"], **BANDIT, learning_rate=1e-3)
    assert unclipped(run) == (
        "nothing was clipped under dapo and ppo: what is seen here does not depend on a clip interval. To let clipping "
        "act, raise learning_rate (0.001), epochs (4), minibatches (1) or staleness (0)"
    )


def test_nothing_is_said_where_clipping_acted_or_was_not_looked_at() -> None:
    assert unclipped(simulate("ppo", **BANDIT, learning_rate=16.0)) == ""
    assert unclipped(simulate("ppo", **BANDIT, learning_rate=1e-3, sampled_metrics=False)) == ""
    assert unclipped(simulate("reinforce", **BANDIT, learning_rate=1e-3)) == ""


@pytest.mark.parametrize(("learning_rate", "said"), [("1e-4,1e-3", True), ("1e-4,16", False)])
def test_a_sweep_is_tried_at_its_corners(learning_rate: str, said: bool) -> None:
    sweep = Sweep(objective="dapo", **BANDIT, vary=[f"learning_rate={learning_rate}", "clip_low=0.1:0.3:3"])
    assert unclipped_corners(sweep) == said * (
        "nothing was clipped in any of the 4 corner cells, tried with 2 seeds: what is seen here does not depend on a "
        "clip interval. To let clipping act, raise learning_rate (0.0001, 0.001), epochs (4), minibatches (1) or "
        "staleness (0)"
    )


def test_corners_are_the_ends_of_three_axes() -> None:
    axes = ["learning_rate=1:4:3", "clip_low=0.1:0.3", "objective=dapo,ppo,grpo", "epochs=2,3,4"]
    tried = corners(Sweep(objective="dapo", **BANDIT | {"seeds": 5}, vary=axes, samples=3))
    assert [axis.values for axis in tried.axes] == [(1.0, 4.0), (0.1, 0.3), ("dapo", "grpo"), (2,)]  # type: ignore[union-attr]
    assert (tried.seeds, tried.samples, tried.sampled_metrics, tried.steps) == (2, None, True, 3)
