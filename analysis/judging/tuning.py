"""An equal budget for every arm: its learning rate is the best of one grid, on seeds that never judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.judging.arms import ArmCache, lean, run_arms
from analysis.judging.claim import StatisticalClaim
from analysis.trajectories import Figure, Series

__all__ = ["Tuned", "tune"]


@dataclass(frozen=True)
class Tuned:
    """Arms with their chosen learning rates."""

    arms: dict[str, dict[str, Any]]
    """Name to arguments of `simulate`, `learning_rate` among them where it was tuned."""
    sensitivity: tuple[Figure, ...] = ()
    """The measure against the learning rate, one line an arm, mean ± 1.96 standard errors over the tuning seeds."""
    at_the_edge: tuple[str, ...] = ()
    """A sentence for every choice that is the first or last of its grid."""


def tune(claim: StatisticalClaim, arms: Mapping[str, Mapping[str, Any]], cache: ArmCache | None = None) -> Tuned:
    """Choose each arm's learning rate; a claim without tuning gets its arms back.

    Args:
        claim: whose setting and tuning apply.
        arms: name to the arguments that differ.
        cache: where finished arms are kept; `None`: nowhere.
    """
    if claim.tuning is None:
        return Tuned({name: dict(arm) for name, arm in arms.items()})
    tuning = claim.tuning
    chosen: dict[str, dict[str, Any]] = {}
    series: list[Series] = []
    edges: list[str] = []
    for name, arm in arms.items():
        means, errors = [], []
        for rate in tuning.grid:
            setting = lean({**claim.setting, "learning_rate": rate}, tuning.measure.description)
            runs = run_arms(setting, {name: arm}, tuning.seeds, tuning.master_seed, cache)
            values = tuning.measure.read(runs[name])
            means.append(float(values.mean()))
            errors.append(float(1.96 * values.std(ddof=1) / math.sqrt(len(values))))
        best = int(np.argmax(means) if tuning.better == "higher" else np.argmin(means))
        chosen[name] = {**arm, "learning_rate": tuning.grid[best]}
        if best in (0, len(tuning.grid) - 1):
            edges.append(
                f"The best learning rate of {name}, {tuning.grid[best]:g}, is the "
                f"{'first' if best == 0 else 'last'} of its grid, so a better one may lie beyond."
            )
        series.append(
            Series(
                label=name,
                x=[math.log2(rate) for rate in tuning.grid],
                mean=means,
                low=[mean - error for mean, error in zip(means, errors, strict=True)],
                high=[mean + error for mean, error in zip(means, errors, strict=True)],
            )
        )
    figure = Figure(
        title="Sensitivity to the learning rate, on tuning seeds",
        x_label="log2 of the learning rate",
        y_label=tuning.measure.description,
        series=series,
    )
    return Tuned(chosen, (figure,), tuple(edges))
