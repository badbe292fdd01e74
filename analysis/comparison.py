"""Several objectives on one environment: curves with intervals, and a table of where they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import plots
from analysis.clipping import unclipped
from analysis.statistics import MINIMUM_SEEDS, interval
from analysis.trajectories import by_objective, curve
from testbed.output import fresh_folder
from testbed.simulation import Run, simulate

__all__ = ["CURVES", "Comparison", "compare"]

CURVES = (
    "exact/entropy",
    "exact/regret",
    "clip/high_fraction",
    "clip/low_fraction",
    "ratio/log_abs_mean",
    "exact/kl_step",
)
"""The metrics a comparison draws."""
_FINAL = ("exact/regret", "exact/entropy", "exact/kl_initial")
_AVERAGED = ("clip/fraction", "exact/kl_step")


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        run: the simulations.
        summary: one row per objective; each metric as its mean and the ends of its 95 % interval over seeds.
        folder: where the run, `summary.csv`, `curves.png` and `curves.svg` lie.
        remark: what the run cannot show, and which settings to raise; empty where there is nothing to say.
    """

    run: Run
    summary: pd.DataFrame
    folder: Path
    remark: str = ""


def compare(objectives: Sequence[str], env: str, *, out: str | Path | None = None, **settings: Any) -> Comparison:
    """Simulate objectives on paired seeds and write curves, a summary table and the full run.

    Args:
        objectives: names or `name(key=value,…)`.
        env: an environment's id.
        out: folder to write; `None`: a new one below `runs/`.
        settings: further arguments of `simulate`.

    Raises:
        RunExistsError: `out` already holds something; nothing is run.
        StorageError: the disk is full; nothing is kept.
    """
    with fresh_folder(out, "compare") as folder:
        run = simulate(list(objectives), env, **settings)
        summary = summarise(run)
        run.save(folder / "run")
        summary.to_csv(folder / "summary.csv")
        arms = by_objective(run.table)
        drawn = [found for metric in CURVES if (found := curve(metric, arms))["series"]]
        figure = plots.curve_figure(drawn, columns=3)
        plots.save(figure, folder / "curves.png")
        plots.save(figure, folder / "curves.svg")
    return Comparison(run, summary, folder, unclipped(run))


def summarise(run: Run) -> pd.DataFrame:
    """Means over seeds with 95 % intervals: `final …` after the last step, `mean …` over all steps.

    With fewer than 5 seeds there is no interval, and a metric without data is NaN.
    """
    rows = {}
    for label, arm in by_objective(run.table).items():
        measured = {f"final {metric}": arm[metric][-1] for metric in _FINAL if metric in arm}
        measured |= {f"mean {metric}": arm[metric][1:].mean(0) for metric in _AVERAGED if metric in arm}
        row: dict[tuple[str, str], float] = {}
        for name, values in measured.items():
            known = values[~pd.isna(values)]
            bounds = interval(known, 0.95) if len(known) >= MINIMUM_SEEDS else None
            row[name, "mean"] = float(known.mean()) if len(known) else float("nan")
            row[name, "low"] = bounds.low if bounds else float("nan")
            row[name, "high"] = bounds.high if bounds else float("nan")
        rows[label] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("objective")
