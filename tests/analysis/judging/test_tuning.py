"""An equal budget for every arm."""

from __future__ import annotations

import dataclasses

from analysis.claims import run_claim
from analysis.judging.claim import Falsifier, Tuning
from analysis.judging.estimands import final
from analysis.judging.tuning import tune
from tests.analysis.judging.small import small_claim


def test_a_best_rate_at_the_edge_of_its_grid_is_said() -> None:
    tuned = small_claim(
        arms={"large": {"objective": "ppo"}, "tiny": {"objective": "reinforce"}},
        falsifier=Falsifier("the other objective", {"large": {"objective": "reinforce"}}),
        tuning=Tuning((0.01, 4.0), final("exact/return"), seeds=4),
    )
    notes = run_claim(tuned).notes
    assert "The best learning rate of large, 4, is the last of its grid, so a better one may lie beyond." in notes
    wider = dataclasses.replace(tuned, tuning=Tuning((0.01, 4.0, 1e-9), final("exact/return")))
    chosen = tune(wider, tuned.arms)
    assert chosen.arms["large"]["learning_rate"] == 4.0
    assert chosen.at_the_edge == ()
