"""A claim that takes a fraction of a second, and trajectories by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.claims import StatisticalClaim
from analysis.judging.claim import Falsifier
from analysis.judging.estimands import difference, final
from analysis.trajectories import Trajectories

QUICK: dict[str, Any] = {
    "env": "RareArm-v1(arms=8,contexts=2,rare_probability=0.1)",
    "steps": 6,
    "group_size": 8,
    "epochs": 3,
    "learning_rate": 4.0,
}


SHARED: dict[str, Any] = {
    "paper": "Test",
    "title": "t",
    "source": "s",
    "statement": "s",
    "scope": "s",
    "unit": "reward",
    "recorded": "reproduced",
}


RETURN = difference(final("exact/return"), of="large", minus="tiny")


def small_claim(**changes: Any) -> StatisticalClaim:
    """Training with a large step beats training with a tiny one; the falsifier swaps nothing but the step."""
    fields: dict[str, Any] = SHARED | {
        "id": "test/large-steps",
        "setting": QUICK,
        "arms": {"large": {"objective": "ppo"}, "tiny": {"objective": "ppo", "learning_rate": 0.01}},
        "estimand": difference(final("exact/return"), of="large", minus="tiny"),
        "direction": "greater",
        "threshold": 0.05,
        "falsifier": Falsifier("the same tiny step", {"large": {"objective": "ppo", "learning_rate": 0.01}}),
        "seeds": 8,
    }
    return StatisticalClaim(**(fields | changes))


def trajectories(**columns: list[list[float]]) -> Trajectories:
    """Arrays of steps by seeds as a run table."""
    first = next(iter(columns.values()))
    rows = [
        {"objective": "o", "replica": seed, "seed": seed, "step": step, "updates": step}
        | {name.replace("__", "/"): values[step][seed] for name, values in columns.items()}
        for step in range(len(first))
        for seed in range(len(first[0]))
    ]
    return Trajectories(pd.DataFrame(rows))
