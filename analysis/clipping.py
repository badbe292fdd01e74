"""Whether clipping acted at all: a run in which it never did says nothing about objectives that differ by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from testbed.simulation import Run, Sweep, run_sweep
from testbed.simulation.axes import Axis, shortened

__all__ = ["corners", "unclipped", "unclipped_corners"]

_METRIC = "clip/fraction"
_SEEDS = 2
_AXES = 3
"""Axes whose two ends are tried together: eight corners."""


def unclipped(run: Run) -> str:
    """A sentence about the objectives of a `simulate` run that have a clip interval and never clipped; else nothing."""
    if _METRIC not in run.table:
        return ""
    arms = run.table.groupby("objective", sort=False)[_METRIC]
    never = [str(label) for label, shares in arms if _never(shares)]
    if not never:
        return ""
    return _sentence(f"under {' and '.join(never)}", run.facts["settings"])


def unclipped_corners(sweep: Sweep) -> str:
    """A sentence if nothing is clipped in the corners of a sweep, tried with two seeds each; else nothing."""
    tried = corners(sweep)
    run = run_sweep(tried)
    assert run is not None
    if _METRIC not in run.table or not _never(run.table[_METRIC]):
        return ""
    where = f"in {'the cell' if tried.cell_count == 1 else f'any of the {tried.cell_count} corner cells'}, tried with "
    varied = {axis.name: shortened(axis.values) for axis in tried.axes if isinstance(axis, Axis)}
    return _sentence(f"{where}{tried.seeds} seeds", vars(sweep) | varied)


def corners(sweep: Sweep) -> Sweep:
    """The sweep over the ends of its first three axes, the others held at their first value, with sampled metrics."""
    ends = []
    for number, axis in enumerate(sweep.axes):
        both = (axis.values[0], axis.values[-1]) if isinstance(axis, Axis) else (axis.low, axis.high)
        ends.append(Axis(axis.name, tuple(dict.fromkeys(both)) if number < _AXES else both[:1]))
    seeds = min(_SEEDS, sweep.seeds)
    return replace(sweep, vary=ends, samples=None, seeds=seeds, sampled_metrics=True, compile=False)


def _never(shares: pd.Series) -> bool:
    return bool(shares.notna().any() and not (shares > 0).any())


def _sentence(where: str, settings: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} ({settings[name]})" for name in ("learning_rate", "epochs", "minibatches"))
    return (
        f"nothing was clipped {where}: what is seen here does not depend on a clip interval. To let clipping act, "
        f"raise {shown} or staleness ({settings['staleness']})"
    )
