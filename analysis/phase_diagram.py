"""Phase diagrams: where in a plane of settings entropy collapses, explodes or stays, from the table of a sweep.

Collapse and explosion are those of `analysis.phenomena`. A cell's onset is the median over its seeds, where a seed that
never gets there counts as later than every step: no onset is shown for a cell in which fewer than half of them do.

The sign boundary is where the mean change of entropy over seeds crosses zero along the vertical axis. Its interval
comes from resampling seeds, which all cells share.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.phenomena import entropy_collapse, entropy_explosion
from analysis.plots import OKABE_ITO, _new_figure, _style, curve_figure, save
from analysis.statistics import MINIMUM_SEEDS, interval
from envs import exact, make_spec
from testbed.errors import ConfigError, UnknownNameError
from testbed.simulation import Run
from testbed.simulation.blocks import table_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BOUNDARIES", "Boundary", "SignBoundary", "draw_phase_diagram", "outcomes", "phase_diagram", "sign_boundary"]

FloatArray = NDArray[np.float64]

LASTING = 3
"""Records an onset must last, as in `analysis.phenomena`; a run with no more records than that has none."""
_RESAMPLES = 2000
_LEVEL = 0.90


@dataclass(frozen=True)
class Boundary:
    """A curve in the plane of two settings at which theory expects the entropy to change its direction."""

    label: str
    """What the legend says."""
    environment: str
    """Short id of the environment it was derived for."""
    x: str
    """The setting it is a function of."""
    y: str
    """The setting whose critical value it gives."""
    curve: Callable[[FloatArray], FloatArray]
    """The critical y at each x."""


BOUNDARIES = (
    # An arm with A > 0 is pushed to r = 1+ε_high and one with A < 0 to 1-ε_low, each half of the time: its expected
    # factor 1 + (ε_high - ε_low)/2 is 1 on the diagonal.
    Boundary("arithmetic mean: ε_high = ε_low", "NullBandit-v1", "clip_low", "clip_high", lambda low: low),
    # The same for the expected logarithm, log(1+ε_high) + log(1-ε_low) = 0.
    Boundary(
        "logarithmic mean: ε_high = ε_low/(1-ε_low)",
        "NullBandit-v1",
        "clip_low",
        "clip_high",
        lambda low: np.where(low < 1, low / np.where(low < 1, 1 - low, 1.0), np.inf),
    ),
)
"""Both are heuristics for saturated clipping, not theorems; the figure shows which of them the simulation follows."""


@dataclass(frozen=True)
class SignBoundary:
    """Where the mean change of entropy crosses zero.

    Attributes:
        x: values of the horizontal axis, `(n,)`.
        y: the crossing at each, `(n,)`; NaN where the sign is the same throughout.
        low, high: ends of its interval over seeds, `(n,)`; NaN where some resamples have no crossing inside the grid,
            and everywhere below 5 seeds.
        level: of the interval.
    """

    x: FloatArray
    y: FloatArray
    low: FloatArray
    high: FloatArray
    level: float = _LEVEL


def outcomes(run: Run) -> pd.DataFrame:
    """One row per cell and seed: how it ended, and when it collapsed or exploded.

    Args:
        run: a sweep.

    Returns:
        Columns `cell`, the axes, `seed`, `entropy` and `entropy_change` (nats per response), `regret` (reward), `kl`
        (nats per response, from the initial policy), `collapse` and `explosion` (steps; infinite: never; NaN: too few
        records to tell).

    Raises:
        ConfigError: the run is no sweep, or has no exact metrics.
    """
    axes = _axis_names(run)
    if "exact/entropy" not in run.table:
        raise ConfigError("the run has no exact metrics; phase diagrams need a policy that can be evaluated exactly")
    table = run.table.sort_values(["cell", "seed", "step"])
    grouped = table.groupby(["cell", "seed"], sort=False)
    last = grouped.last()
    result = last[axes].copy()
    result["entropy"] = last["exact/entropy"]
    result["entropy_change"] = last["exact/entropy"] - grouped["exact/entropy"].first()
    result["regret"] = last["exact/regret"]
    result["kl"] = last["exact/kl_initial"]
    optimal = _optimal_entropies(run, axes)
    result["collapse"] = result["explosion"] = math.inf
    for steps, replicas in _by_steps(table):
        entropy, regret = (
            replicas.pivot_table(index="step", columns=["cell", "seed"], values=f"exact/{name}")
            for name in ("entropy", "regret")
        )
        if len(steps) <= LASTING:
            result.loc[entropy.columns, ["collapse", "explosion"]] = math.nan
            continue
        members: list[Any] = entropy.columns.to_list()
        wanted = np.array([optimal[cell, seed] for cell, seed in members])
        collapse = entropy_collapse(entropy, regret, wanted, steps=steps, lasting=LASTING)
        explosion = entropy_explosion(entropy, regret, steps=steps, lasting=LASTING)
        for name, onset in (("collapse", collapse), ("explosion", explosion)):
            result.loc[entropy.columns, name] = np.where(onset.observed, onset.times, math.inf)
    return result.reset_index()


def sign_boundary(table: pd.DataFrame, x: str, y: str, *, value: str = "entropy_change") -> SignBoundary:
    """Where the mean of `value` over seeds crosses zero along `y`, for every `x`, with an interval over seeds.

    Args:
        table: what `outcomes` returns, one row per cell and seed of a full grid.
        x: axis along which the boundary is followed.
        y: axis along which the crossing is looked for, by linear interpolation; several crossings are averaged.
        value: column whose sign is followed.

    Raises:
        ConfigError: the cells are no full grid with the same seeds in each.
    """
    cube = table.pivot_table(index="seed", columns=[x, y], values=value, aggfunc="mean")
    columns, rows = (np.sort(table[name].unique()).astype(float) for name in (x, y))
    if cube.shape[1] != len(columns) * len(rows) or bool(cube.isna().any(axis=None)):
        raise ConfigError(f"the cells over {x} and {y} are no full grid with equal seeds; a boundary needs one")
    values = cube.to_numpy().reshape(len(cube), len(columns), len(rows))
    drawn = np.random.default_rng(0).multinomial(len(cube), np.full(len(cube), 1 / len(cube)), size=_RESAMPLES)
    resampled = np.tensordot(drawn / len(cube), values, axes=1)
    crossings = _crossings(resampled, rows)
    tail = (1 - _LEVEL) / 2
    complete = ~np.isnan(crossings).any(0) & (len(cube) >= MINIMUM_SEEDS)
    low, high = np.full((2, len(columns)), math.nan)
    low[complete], high[complete] = np.quantile(crossings[:, complete], [tail, 1 - tail], axis=0)
    return SignBoundary(columns, _crossings(values.mean(0), rows), low, high)


def phase_diagram(
    run: Run,
    x: str | None = None,
    y: str | None = None,
    *,
    where: Mapping[str, Any] | None = None,
) -> Figure:
    """Heat maps of a sweep: final entropy, regret and KL, and the onset of collapse and explosion.

    Args:
        run: a sweep over at least one numeric axis; with only one, curves are drawn instead.
        x: horizontal axis; `None`: the first numeric one.
        y: vertical axis; `None`: the next numeric one.
        where: values at which other axes are held; each of them needs one.

    Raises:
        ConfigError: no numeric axis, an axis left free, or no cell at the given values.
        UnknownNameError: no axis of that name.
    """
    names = _axis_names(run)
    for name in [*(where or {}), *filter(None, (x, y))]:
        if name not in names:
            raise UnknownNameError("axis of the sweep", name, names)
    table = _held(outcomes(run), where or {})
    free = [name for name in names if name not in (where or {})]
    numeric = [name for name in free if _is_numeric(table[name])]
    x = x or next((name for name in numeric if name != y), None)
    y = y or next((name for name in numeric if name != x), None)
    if x is None or x not in numeric:
        raise ConfigError(f"a phase diagram needs a numeric axis; the sweep varies {', '.join(names) or 'nothing'}")
    left = [name for name in free if name not in (x, y)]
    if left:
        raise ConfigError(
            f"{', '.join(left)} {'is' if len(left) == 1 else 'are'} varied beside {x} and {y}; choose one value of "
            f"each with where, such as where={{{left[0]!r}: {table[left[0]].iloc[0]!r}}}"
        )
    if y is None:
        return _curves(table, x)
    return _heat_maps(run, table, x, y)


def draw_phase_diagram(run: Run, folder: str | Path) -> Path | None:
    """Write the phase diagram of a sweep's first two numeric axes as PNG, one file per combination of the others.

    Args:
        run: a sweep.
        folder: where `phase.png`, or `phase-NAME=VALUE-….png`, goes.

    Returns:
        The first file; `None` for a sweep without a numeric axis.
    """
    names = _axis_names(run)
    first = run.table.drop_duplicates("cell")[names]
    plane = [name for name in names if _is_numeric(first[name]) and first[name].nunique() > 1][:2]
    if not plane:
        return None
    others = [name for name in names if name not in plane]
    paths = []
    for values in first[others].drop_duplicates().itertuples(index=False, name=None) if others else [()]:
        # A table read from a file has NaN where a setting was off.
        where = {name: None if pd.isna(value) else value for name, value in zip(others, values, strict=True)}
        stem = "-".join(["phase", *(re.sub(r"[^\w=.,()+-]", "_", f"{name}={value}") for name, value in where.items())])
        paths.append(save(phase_diagram(run, *plane, where=where), Path(folder) / f"{stem}.png"))
    return paths[0]


# -- reading -----------------------------------------------------------------------------------------------------------


def _axis_names(run: Run) -> list[str]:
    if "sweep" not in run.facts:
        raise ConfigError("the run is no sweep: its facts hold no axes. Make it with run_sweep or `testbed sweep`")
    return [axis["name"] for axis in run.facts["sweep"]["vary"]]


def _is_numeric(axis: pd.Series[Any]) -> bool:
    """Whether all values are numbers; one that is None has no place on a scale."""
    return bool(pd.api.types.is_numeric_dtype(axis)) and not axis.isna().any()


def _held(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in where.items():
        # None, which switches a setting off, equals nothing.
        kept = table[table[name].isna() if pd.isna(value) else table[name] == value]
        if kept.empty:
            raise ConfigError(f"no cell has {name} = {value!r}; it takes {sorted(table[name].unique(), key=str)}")
        table = kept
    return table


def _by_steps(table: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], pd.DataFrame]]:
    """The recorded steps, and the rows of all cells recorded at them."""
    cells: dict[tuple[int, ...], list[Any]] = {}
    for cell, steps in table.groupby("cell")["step"].unique().items():
        cells.setdefault(tuple(steps.tolist()), []).append(cell)
    for recorded, members in cells.items():
        yield np.array(recorded), table[table["cell"].isin(members)]


def _optimal_entropies(run: Run, axes: Sequence[str]) -> dict[tuple[Any, int], float]:
    """Entropy of the most random optimum of every cell's environment, by cell and seed, nats per response."""
    first = run.table.drop_duplicates("cell").set_index("cell")
    sweep = run.facts["sweep"]
    seeds = sorted(int(seed) for seed in run.table["seed"].unique())
    known: dict[str, Any] = {}
    found = {}
    # Not iterrows, which makes one type of a row: two tokens beside a rate of 0.1 would be 2.0 tokens.
    for cell, values in zip(first.index, first[list(axes)].itertuples(index=False, name=None), strict=True):
        row = dict(zip(axes, values, strict=True))
        env = str(row["env"]) if "env" in axes else sweep["env"]
        own = make_spec(env).parameters
        bare = {name.removeprefix("env."): row[name] for name in axes}
        # pandas hands out numpy scalars, which an environment's parameters are not.
        parameters = {
            name: value.item() if hasattr(value, "item") else value for name, value in bare.items() if name in own
        }
        key = repr((env, parameters))
        if key not in known:
            spec = make_spec(env, **parameters).for_seeds([table_seed(sweep["seed"], seed) for seed in seeds])
            known[key] = np.asarray(exact.maximum_entropy_optimum(spec).entropy)
        found.update({(cell, seed): value for seed, value in zip(seeds, known[key], strict=True)})
    return found


def _crossings(values: ArrayLike, positions: FloatArray) -> FloatArray:
    """Where values `(..., n)` cross zero along positions `(n,)`, `(...,)`; the mean of several, NaN without any."""
    values = np.asarray(values, dtype=np.float64)
    before, after = values[..., :-1], values[..., 1:]
    crosses = np.sign(before) != np.sign(after)
    step = np.where(crosses, after - before, 1.0)
    at = positions[:-1] - before / step * np.diff(positions)
    count = crosses.sum(-1)
    return np.where(count > 0, np.where(crosses, at, 0.0).sum(-1) / np.maximum(count, 1), math.nan)


# -- drawing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    column: str
    title: str
    unit: str
    palette: str
    centred: bool = False


def _heat_maps(run: Run, table: pd.DataFrame, x: str, y: str) -> Figure:
    panels = (
        _Panel("entropy", "Final entropy", "nats per response", "cividis"),
        _Panel("entropy_change", "Change of entropy", "nats per response", "PuOr", centred=True),
        _Panel("regret", "Regret", "reward", "cividis"),
        _Panel("kl", "KL from the initial policy", "nats per response", "cividis"),
        _Panel("collapse", "Onset of collapse", "step (rollouts)", "viridis_r"),
        _Panel("explosion", "Onset of explosion", "step (rollouts)", "viridis_r"),
    )
    cells = table.groupby([x, y])
    grid = len(cells) == table[x].nunique() * table[y].nunique()
    with _style():
        figure = _new_figure(width=14.0, height=6.6)
        all_axes = figure.subplots(2, 4, sharex=True, sharey=True)
        for axes, panel in zip(all_axes.flat, panels, strict=False):
            # The median of a time that some never reach; means of everything else.
            summary = cells[panel.column].median() if panel.unit.startswith("step") else cells[panel.column].mean()
            _draw_panel(axes, summary, panel, grid=grid)
        handles = _draw_boundaries(all_axes.flat[1], run, table, x, y) if grid else []
        for axes in all_axes[:, 0]:
            axes.set_ylabel(y)
        for axes in [*all_axes[1, :2], *all_axes[0, 2:]]:
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
        _explain(all_axes.flat[6], handles, _caption(run, table))
        all_axes.flat[7].set_axis_off()
        return figure


def _draw_panel(axes: Axes, summary: pd.Series[Any], panel: _Panel, *, grid: bool) -> None:
    shown = summary[np.isfinite(summary)]
    axes.set_title(panel.title, loc="left")
    axes.set_facecolor("#eceff1")
    axes.grid(visible=False)
    if shown.empty:
        reason = f"needs more than {LASTING} records" if summary.isna().all() else "in no cell"
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color="#5b6570")
        shown_range = (0.0, 1.0)
    else:
        shown_range = (float(shown.min()), float(shown.max()))
    if panel.centred:
        reach = max(abs(end) for end in shown_range) or 1.0
        shown_range = (-reach, reach)
    elif shown_range[1] - shown_range[0] < 1e-6:  # rounding is no structure
        shown_range = (shown_range[0] - 0.5, shown_range[1] + 0.5)
    options: dict[str, Any] = {"cmap": panel.palette, "vmin": shown_range[0], "vmax": shown_range[1]}
    if grid:
        table = summary.unstack(0)
        drawn: Any = axes.pcolormesh(
            table.columns.to_numpy(dtype=float),
            table.index.to_numpy(dtype=float),
            np.ma.masked_invalid(table.to_numpy()),
            shading="nearest",
            rasterized=True,
            **options,
        )
    else:
        points = np.array(summary.index.to_list(), dtype=float)
        drawn = axes.scatter(points[:, 0], points[:, 1], c=summary, s=26, edgecolor="white", linewidth=0.4, **options)
    for values, setter in zip(zip(*summary.index, strict=True), (axes.set_xscale, axes.set_yscale), strict=True):
        if _is_logarithmic(values):
            setter("log")
    if not shown.empty:
        bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02)
        bar.set_label(panel.unit)
        bar.outline.set_visible(False)


def _is_logarithmic(values: Sequence[float]) -> bool:
    """Whether distinct values are evenly spaced in their logarithm."""
    distinct = np.unique(np.asarray(values, dtype=float))
    if len(distinct) < 3 or distinct[0] <= 0:
        return False
    steps = np.diff(np.log(distinct))
    return bool(np.allclose(steps, steps[0], rtol=1e-6))


def _draw_boundaries(axes: Axes, run: Run, table: pd.DataFrame, x: str, y: str) -> list[Any]:
    handles: list[Any] = []
    limits = axes.get_xlim(), axes.get_ylim()
    if table["seed"].nunique() > 1 and table[y].nunique() > 1:
        found = sign_boundary(table, x, y)
        if np.isfinite(found.y).any():
            handles += axes.plot(found.x, found.y, color="black", linewidth=1.6, label="measured: no change")
        if np.isfinite(found.low).any():
            handles.append(
                axes.fill_between(
                    found.x,
                    found.low,
                    found.high,
                    facecolor="none",
                    edgecolor="black",
                    hatch="//////",
                    linewidth=0.0,
                    label=f"its {found.level:.0%} interval over seeds",
                )
            )
    position = np.linspace(*limits[0], 400)
    for number, boundary in enumerate(_boundaries(run, x, y)):
        along = position if boundary.x == x else np.linspace(*limits[1], 400)
        across = boundary.curve(along)
        points = (along, across) if boundary.x == x else (across, along)
        handles += axes.plot(
            *points,
            color=OKABE_ITO[(1, 2)[number % 2]],
            linestyle=("--", ":")[number % 2],
            linewidth=2,
            label=boundary.label,
        )
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    return handles


def _boundaries(run: Run, x: str, y: str) -> list[Boundary]:
    name = make_spec(run.facts["sweep"]["env"]).name
    return [item for item in BOUNDARIES if item.environment == name and {item.x, item.y} == {x, y}]


def _caption(run: Run, table: pd.DataFrame) -> str:
    sweep = run.facts["sweep"]
    counts = table.groupby("cell")["seed"].nunique()
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"

    varied = set(_axis_names(run))
    fixed = {
        "steps": f"{sweep['steps']} rollouts",
        "epochs": f"{sweep['epochs']} epochs",
        "minibatches": f"{sweep['minibatches']} mini-batch{'es' if sweep['minibatches'] > 1 else ''}",
        "group_size": f"group size {sweep['group_size']}",
        "learning_rate": f"learning rate {sweep['learning_rate']:g}",
    }
    lines = (
        f"{'objectives' if 'objective' in varied else sweep['objective']} on "
        f"{'environments' if 'env' in varied else sweep['env']}".replace(",", ", "),
        f"{len(counts)} cells, {seeds} seeds per cell",
        ", ".join(text for name, text in fixed.items() if name not in varied),
        "Grey: fewer than half of the seeds get there",
    )
    return "\n".join(lines)


def _explain(axes: Axes, handles: Sequence[Any], caption: str) -> None:
    axes.set_axis_off()
    if handles:
        legend = axes.legend(
            handles=handles, loc="upper left", borderaxespad=0.0, title="Change of entropy", alignment="left"
        )
        # Longer than a panel is wide; the columns need not make room for it.
        legend.set_in_layout(False)
    wrapped = "\n".join(textwrap.fill(line, 46, break_on_hyphens=False) for line in caption.split("\n"))
    axes.text(0.0, 0.0, wrapped, in_layout=False, transform=axes.transAxes, va="bottom", fontsize=8.5, linespacing=1.5)


def _curves(table: pd.DataFrame, x: str) -> Figure:
    measures = (
        ("entropy", "Final entropy", "nats per response"),
        ("entropy_change", "Change of entropy", "nats per response"),
        ("regret", "Regret", "reward"),
        ("kl", "KL from the initial policy", "nats per response"),
    )
    curves = []
    for column, title, unit in measures:
        positions = sorted(table[x].unique())
        values = [table.loc[table[x] == position, column].to_numpy() for position in positions]
        seeds = table["seed"].nunique()
        series = {"label": f"mean of {seeds} seeds", "x": positions, "mean": [float(item.mean()) for item in values]}
        if seeds >= MINIMUM_SEEDS:
            found = [interval(item) for item in values]
            series |= {
                "label": f"mean of {seeds} seeds, 90% interval",
                "low": [item.low for item in found],
                "high": [item.high for item in found],
            }
        curves.append({"title": title, "x_label": x, "y_label": f"{title.lower()} ({unit})", "series": [series]})
    return curve_figure(curves, columns=2)
