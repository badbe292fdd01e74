"""Run tables as arrays of steps by seeds, and as curves with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from testbed.diagnostics import metric_info
from testbed.errors import ConfigError

__all__ = ["Figure", "Series", "Trajectories", "by_objective", "curve"]

Array = NDArray[np.float64]


class Series(TypedDict):
    """One line of a figure: its points with their intervals, NaN where a point has none."""

    label: str
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


class Figure(TypedDict):
    """Lines over one axis, as a result keeps them and a report draws them."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]


class Trajectories:
    """The table of one arm as arrays of steps by seeds.

    Args:
        table: rows of one objective from `Run.table`.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table.sort_values(["step", "seed"])
        self.steps = np.sort(table["step"].unique())
        self.seeds = int(table["seed"].nunique())

    def __getitem__(self, metric: str) -> Array:
        """float64 `(steps, seeds)`."""
        if metric not in self._table:
            raise ConfigError(f"the run has no metric {metric!r}; it has {sorted(self._table.columns)[5:]}")
        return self._table[metric].to_numpy(np.float64).reshape(len(self.steps), self.seeds)

    def __contains__(self, metric: str) -> bool:
        return metric in self._table

    def block(self, start: int, stop: int) -> Trajectories:
        """The trajectories of the seeds from `start` up to but not including `stop`."""
        seeds = self._table["seed"]
        return Trajectories(self._table[(seeds >= start) & (seeds < stop)])


def by_objective(table: pd.DataFrame) -> dict[str, Trajectories]:
    """The trajectories of each objective of a run table, in the order of their first appearance."""
    return {str(label): Trajectories(rows) for label, rows in table.groupby("objective", sort=False)}


def curve(metric: str, arms: Mapping[str, Trajectories]) -> Figure:
    """A metric over the rollouts, one series an arm: mean over seeds with a pointwise 95 % interval.

    The intervals are for the eye; no verdict reads them. Steps and arms without data are left out.
    """
    series: list[Series] = []
    for name, run in arms.items():
        if metric not in run:
            continue
        values = run[metric]
        shown = ~np.isnan(values).any(1)
        kept = values[shown]
        if not len(kept):
            continue
        seeds = kept.shape[1]
        half = 1.96 * kept.std(1, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.full(len(kept), np.nan)
        mean = kept.mean(1)
        series.append(
            {
                "label": name,
                "x": run.steps[shown].tolist(),
                "mean": mean.tolist(),
                "low": (mean - half).tolist(),
                "high": (mean + half).tolist(),
            }
        )
    unit = metric_info(metric).unit
    return {
        "title": metric,
        "x_label": "rollouts",
        "y_label": metric if unit == "1" else unit,
        "series": series,
    }
