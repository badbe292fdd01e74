"""Figures: curves over training with their intervals, and intervals against a threshold.

Colours are those of Okabe and Ito, told apart also by dash and marker, so that nothing is said by colour alone.
A gap in a line is a missing value. matplotlib and seaborn are loaded on first use; no window is ever opened.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from testbed.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.lines import Line2D

__all__ = [
    "OKABE_ITO",
    "Bar",
    "curve_figure",
    "density_figure",
    "interval_figure",
    "save",
    "scatter_figure",
    "svg_source",
]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Seven colours, five dashes, six markers: no two of the first 210 series look alike.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_INK, _QUIET, _CLAIMED = "#1d2329", "#5b6570", "#e4eef6"
_DIRECTIONS = ("greater", "less", "equivalent", "identity")


@dataclass(frozen=True)
class Bar:
    """One estimate with its interval, drawn as a row; NaN or None is shown as the word "missing"."""

    label: str
    """What the row is called."""
    estimate: float | None
    """Point estimate, in the unit of the figure."""
    low: float | None = None
    """Lower end of the interval; None: there is none."""
    high: float | None = None
    """Upper end of the interval; None: there is none."""


def curve_figure(curves: Sequence[Mapping[str, Any]], *, columns: int = 2, titles: bool = True) -> Figure:
    """One panel a curve set, each series a line with the band of its interval.

    Args:
        curves: mappings with `title`, `x_label`, `y_label` (both with their unit) and `series`, a list of
            mappings with `label`, `x`, `mean` and, where there is an interval, `low` and `high`;
            None and NaN are gaps.
        columns: panels side by side, at most.
        titles: whether each panel carries its title.

    Raises:
        ConfigError: no curves, or a series whose columns differ in length.

    >>> line = {"label": "dapo", "x": [0, 1, 2], "mean": [1.4, None, 1.1]}
    >>> panel = {"title": "Entropy", "x_label": "step (rollouts)", "y_label": "entropy (nats)", "series": [line]}
    >>> curve_figure([panel]).axes[0].get_ylabel()
    'entropy (nats)'
    """
    if not curves:
        raise ConfigError("curve_figure got no curves; give at least one set of series")
    legends = [[str(series["label"]) for series in curve["series"]] for curve in curves]
    # A label looks the same in every panel, and one legend serves all of them if some panel has every label.
    labels = list(dict.fromkeys(label for shown in legends for label in shown))
    shared = len(curves) > 1 and any(set(shown) == set(labels) for shown in legends)
    with _style():
        columns = min(columns, len(curves))
        rows = math.ceil(len(curves) / columns)
        lines = max((-(-len(shown) // _legend_columns(shown)) for shown in legends if shown), default=0)
        # A legend of more than three lines would take its room from the axes.
        height = 2.45 * rows + 0.35 if shared else (2.75 + 0.2 * max(0, lines - 3)) * rows
        figure = _new_figure(width=4.0 * columns, height=height)
        handles: dict[str, Line2D] = {}
        for (panel, axes), curve, shown in zip(
            _panels(figure, rows, columns, len(curves), shared), curves, legends, strict=True
        ):
            for label, series in zip(shown, curve["series"], strict=True):
                handles[label] = _draw_series(axes, series, labels.index(label), str(curve.get("title", "")))
            axes.set_xlabel(str(curve["x_label"]))
            axes.set_ylabel(textwrap.fill(str(curve["y_label"]), 34))
            axes.margins(x=0.02)
            if titles:
                axes.set_title(textwrap.fill(str(curve["title"]), 52), loc="left")
            if shown and not shared:
                _legend(panel, [handles[label] for label in shown])
        if shared:
            _legend(figure, [handles[label] for label in labels], wide=columns)
        return figure


def _panels(figure: Figure, rows: int, columns: int, count: int, shared: bool) -> list[tuple[FigureBase, Axes]]:
    """Axes with what their legend belongs to; those that share one stand in line."""
    if not shared:
        return [
            (panel, panel.subplots()) for panel in list(figure.subfigures(rows, columns, squeeze=False).flat)[:count]
        ]
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in grid[count:]:
        spare.remove()
    return [(figure, axes) for axes in grid[:count]]


def interval_figure(
    bars: Sequence[Bar], *, threshold: float | None, direction: str, unit: str, label: str = "estimate"
) -> Figure:
    """Estimates with intervals as rows, against the threshold; the claimed side is shaded.

    Args:
        bars: the rows, the first on top.
        threshold: where the claimed side begins, in `unit`; None: nothing is shaded.
        direction: "greater" or "less" (claimed side above or below the threshold), "equivalent" (between
            minus and plus the threshold), "identity" (a deviation below the tolerance; logarithmic axis, on
            which an exact 0 is drawn as an arrow at the left edge).
        unit: unit of every number, shown on the axis.
        label: what the axis measures.

    Raises:
        ConfigError: no bars, or an unknown direction.
    """
    if not bars:
        raise ConfigError("interval_figure got no bars; give at least one estimate")
    if direction not in _DIRECTIONS:
        raise ConfigError(f"direction is {direction!r}; expected one of {', '.join(_DIRECTIONS)}")
    limit = math.nan if threshold is None else float(threshold)
    logarithmic = direction == "identity"
    with _style():
        described = textwrap.fill(f"{label} ({unit})" if unit else label, 46)
        figure = _new_figure(width=3.9, height=0.95 + 0.34 * len(bars) + 0.15 * described.count("\n"))
        axes = figure.subplots()
        left, right = _limits(bars, limit, direction)
        if logarithmic:
            axes.set_xscale("log")
            # Plain text: the axis' own labels are formulas, which are switched off.
            axes.xaxis.set_major_formatter(
                lambda value, _: f"10{str(round(math.log10(value))).translate(_SUPERSCRIPTS)}"
            )
            axes.minorticks_off()
        else:
            # Four-digit labels of a fifth and further tick would run into each other at this width.
            axes.locator_params(axis="x", nbins=4)
        if not _numbers(bars) and not math.isfinite(limit):
            axes.set_xticks([])
        axes.set_xlim(left, right)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        _draw_threshold(axes, limit, direction, left, right)
        for row, bar in enumerate(bars):
            _draw_bar(axes, bar, row, floor=left if logarithmic else None)
        axes.set_yticks(range(len(bars)), [textwrap.fill(bar.label, 18) for bar in bars])
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(described)
        return figure


def density_figure(
    counts: np.ndarray,
    x_edges: np.ndarray,
    y_edges: np.ndarray,
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    gates: Sequence[tuple[str, np.ndarray]] = (),
) -> Figure:
    """Counts over two logarithmic axes, darker where more lies, with the borders of gates.

    Args:
        counts: `(X, Y)`.
        x_edges: of the bins, `(X + 1,)`, equally spaced in the logarithm.
        y_edges: `(Y + 1,)`, likewise.
        x_label: what the axis measures, with its unit.
        y_label: likewise.
        x_ticks: values that are written at the axis.
        y_ticks: likewise.
        gates: name and share that is let through, `(X, Y)`; the border is where half of it is, NaN is no part.

    >>> edges = np.array([0.1, 1.0, 10.0])
    >>> density_figure(np.eye(2), edges, edges, x_label="q", y_label="r", x_ticks=[1], y_ticks=[1]).axes[0].get_xlabel()
    'q'
    """
    from matplotlib.lines import Line2D

    with _style():
        figure = _new_figure(width=2.9, height=2.6 + (0.25 if gates else 0))
        axes = figure.subplots()
        extent = (math.log(x_edges[0]), math.log(x_edges[-1]), math.log(y_edges[0]), math.log(y_edges[-1]))
        # Every decade of counts is as large a step in shade: a few clipped tokens are the point.
        shade = np.ma.masked_array(np.log1p(counts.T), counts.T == 0)
        axes.imshow(
            shade, origin="lower", extent=extent, aspect="auto", cmap="Blues", vmin=0,
            interpolation="nearest", zorder=1,
        )  # fmt: skip
        handles = []
        for index, (name, kept) in enumerate(gates):
            colour = (OKABE_ITO[1], OKABE_ITO[6])[index % 2]
            dashes: Any = ("-", (0, (4, 1.6)))[index % 2]
            middles = [(np.log(edges[1:]) + np.log(edges[:-1])) / 2 for edges in (x_edges, y_edges)]
            values = np.ma.masked_invalid(kept.T)
            if values.min() < 0.5 <= values.max():
                axes.contour(*middles, values, [0.5], colors=[colour], linewidths=[1.4], linestyles=[dashes], zorder=3)
                handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=1.4, label=name))
        for set_ticks, ticks in ((axes.set_xticks, x_ticks), (axes.set_yticks, y_ticks)):
            set_ticks([math.log(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if handles:
            figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
        return figure


def scatter_figure(x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str) -> Figure:
    """Points over two axes, with the lines through 0.

    >>> scatter_figure([0.0, 1.0], [1.0, -1.0], x_label="predicted", y_label="measured").axes[0].get_ylabel()
    'measured'
    """
    with _style():
        figure = _new_figure(width=3.4, height=2.8)
        axes = figure.subplots()
        for draw in (axes.axhline, axes.axvline):
            draw(0, color="#9aa3ab", linewidth=0.8, zorder=1)
        axes.plot(x, y, "o", color=OKABE_ITO[0], markersize=4.5, markeredgecolor="white", markeredgewidth=0.6, zorder=3)
        axes.locator_params(nbins=5)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write `figure` in the format of the suffix (.svg, .png, .pdf); equal figures give equal bytes.

    Raises:
        ConfigError: another suffix.
    """
    path = Path(path)
    undated: dict[str, dict[str, Any]] = {
        ".svg": {"metadata": {"Date": None}},
        ".png": {"dpi": 200},
        ".pdf": {"metadata": {"CreationDate": None}},
    }
    if path.suffix not in undated:
        raise ConfigError(f"cannot save a figure as {path.name!r}; expected a name ending in {', '.join(undated)}")
    with _style():
        figure.savefig(path, **undated[path.suffix])
    return path


def svg_source(figure: Figure) -> str:
    """The figure as an SVG document without background or date, its text kept as text."""
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib
    import seaborn

    settings: dict[str, Any] = {
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "axes.edgecolor": "#9aa3ab",
        "axes.labelcolor": _QUIET,
        "axes.linewidth": 0.8,
        "text.color": _INK,
        "xtick.color": _QUIET,
        "ytick.color": _QUIET,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e8ebee",
        "grid.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        # Text stays text: small files, readable by a screen reader. A dollar sign in a label is a dollar sign.
        "svg.fonttype": "none",
        "svg.hashsalt": "testbed",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(seaborn.axes_style("ticks") | settings):
        yield


def _new_figure(*, width: float, height: float) -> Figure:
    # Not through pyplot: no global state to clean up and no display needed.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _column(series: Mapping[str, Any], key: str, title: str) -> np.ndarray:
    values = np.array([math.nan if value is None else value for value in series[key]], dtype=float)
    if values.shape != (len(series["x"]),):
        raise ConfigError(
            f"series {series.get('label')!r} of {title!r} has {len(values)} values of {key!r} "
            f"for {len(series['x'])} of 'x'; give one for each, None where it is missing"
        )
    return values


def _draw_series(axes: Axes, series: Mapping[str, Any], index: int, title: str) -> Line2D:
    # seaborn.lineplot drops missing points and joins their neighbours; a gap has to stay a gap.
    colour = OKABE_ITO[index % len(OKABE_ITO)]
    x, mean = _column(series, "x", title), _column(series, "mean", title)
    (line,) = axes.plot(
        x,
        mean,
        label=str(series["label"]),
        color=colour,
        linewidth=1.5,
        linestyle=_DASHES[index % len(_DASHES)],
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=4.2,
        markeredgecolor="white",
        markeredgewidth=0.5,
        # A few markers a line, staggered so that overlapping series stay legible.
        markevery=(0.03 + 0.025 * (index % 6), 0.17) if len(x) > 12 else None,
    )
    if series.get("low") is not None and series.get("high") is not None:
        low, high = _column(series, "low", title), _column(series, "high", title)
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    return line


def _legend(place: FigureBase, handles: Sequence[Line2D], wide: int = 1) -> None:
    labels = [str(handle.get_label()) for handle in handles]
    place.legend(handles=handles, loc="outside lower left", ncols=_legend_columns(labels, wide))


def _legend_columns(labels: Sequence[str], wide: int = 1) -> int:
    # A panel holds about 48 characters of legend text in a row, 7 of them for each sample line.
    return max(1, min(len(labels), 48 * wide // (max(map(len, labels)) + 7)))


def _numbers(bars: Sequence[Bar]) -> list[float]:
    values = [value for bar in bars for value in (bar.estimate, bar.low, bar.high) if value is not None]
    return [value for value in values if math.isfinite(value)]


def _limits(bars: Sequence[Bar], limit: float, direction: str) -> tuple[float, float]:
    if direction == "identity":
        positive = [abs(value) for value in [*_numbers(bars), limit] if math.isfinite(value) and value != 0]
        if not positive:
            return 1e-16, 1.0
        # Room on the left for the arrow that stands for an exact 0.
        room = 4 if any(value == 0 for value in _numbers(bars)) else 1
        first, last = math.floor(math.log10(min(positive))) - room, math.ceil(math.log10(max(positive))) + 1
        return 10.0**first, 10.0**last
    symmetric = [limit, -limit] if direction.startswith("equiv") else [limit]
    shown = [value for value in [*_numbers(bars), *symmetric] if math.isfinite(value)]
    if not shown:
        return -1.0, 1.0
    low, high = min(shown), max(shown)
    margin = 0.12 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _draw_threshold(axes: Axes, limit: float, direction: str, left: float, right: float) -> None:
    if not math.isfinite(limit):
        return
    name = "tolerance" if direction == "identity" else "threshold"
    if direction == "identity" and limit <= 0:
        # A logarithmic axis has no place for a tolerance of 0: it stands at the edge, as an exact 0 does.
        limit, name = left, "tolerance 0"
    claimed = {"greater": (limit, right), "less": (left, limit), "identity": (left, limit)}
    start, stop = claimed.get(direction, (-limit, limit))
    axes.axvspan(start, stop, color=_CLAIMED, linewidth=0, zorder=0)
    edges = (-limit, limit) if direction.startswith("equiv") else (limit,)
    for edge in edges:
        axes.axvline(edge, color=_INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        # Anchored away from the nearer border, so that the word stays inside the figure.
        at_right = axes.transData.transform((edge, 0))[0] > axes.transAxes.transform((0.5, 0))[0]
        if edge == edges[-1]:
            axes.annotate(
                f"{'± ' if len(edges) > 1 else ''}{name}",
                (edge, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-3 if at_right else 3, 3),
                textcoords="offset points",
                ha="right" if at_right else "left",
                va="bottom",
                color=_INK,
                fontsize=8,
            )


def _draw_bar(axes: Axes, bar: Bar, row: int, *, floor: float | None) -> None:
    colour, marker = OKABE_ITO[row % len(OKABE_ITO)], ("o", "D", "s", "^")[row % 4]
    if bar.estimate is None or not math.isfinite(bar.estimate):
        axes.text(0.5, row, "missing", transform=axes.get_yaxis_transform(), ha="center", va="center", color=_QUIET)
        return
    if bar.low is not None and bar.high is not None and math.isfinite(bar.low) and math.isfinite(bar.high):
        style = "-" if row == 0 else (0, (4, 1.4))
        axes.plot([bar.low, bar.high], [row, row], color=colour, linewidth=2.4, linestyle=style, zorder=3)
        axes.plot([bar.low, bar.high], [row, row], "|", color=colour, markersize=9, markeredgewidth=1.8, zorder=3)
    if floor is not None and bar.estimate <= 0:
        axes.plot(floor, row, marker="<", markersize=7, color=colour, clip_on=False, zorder=4)
        axes.annotate("exactly 0", (floor, row), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8)
        return
    axes.plot(
        bar.estimate, row, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.8, zorder=4
    )
