"""Mechanisms: what the papers' statements rest on, and what the objectives they build on do."""

from __future__ import annotations

from analysis.judging.estimands import Estimand

PAPER, BASELINES = "Mechanisms", "Baselines"
PPO, UNCLIPPED = {"objective": "ppo"}, {"objective": "ppo(clip_low=1e9,clip_high=1e9)"}


def since_the_start(metric: str, arm: str) -> Estimand:
    """How much the metric of an arm changed since the initial policy."""
    return Estimand(
        f"[{arm}] {metric} after the last step - {metric} of the initial policy",
        lambda runs: runs[arm][metric][-1] - runs[arm][metric][0],
        frozenset({arm}),
    )
