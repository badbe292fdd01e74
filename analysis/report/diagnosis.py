"""A diagnosis as one self-contained page: findings with their curves, the onset marked, and what could not be seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from analysis.diagnose.comparison import Comparison
from analysis.diagnose.diagnosis import Diagnosis
from analysis.diagnose.names import describe
from analysis.diagnose.rule import Evidence, Finding
from analysis.diagnose.series import Series
from analysis.report import formatting
from analysis.report.templates import environment

__all__ = ["write_diagnosis_page"]

_MARKS = {"problem": "✗ problem", "warning": "! warning", "note": "· note"}
_POINTS = 400
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 190, 62, 26, 10


def write_diagnosis_page(diagnosis: Diagnosis, path: str | Path, comparison: Comparison | None = None) -> Path:
    """Write the page; whatever comes from the log is escaped."""
    log = diagnosis.log
    steps = log.steps
    page = (
        environment()
        .get_template("diagnosis.html")
        .render(
            name=_short(log.name),
            engine=log.engine.title,
            rows=f"{log.rows:,}",
            steps=None if steps is None else f"{steps[0]:g} to {steps[1]:g}",
            counts={level: sum(item.level == level for item in diagnosis.findings) for level in _MARKS},
            findings=[_finding(item) for item in diagnosis.findings],
            silent=[
                {
                    "rule": item.rule,
                    "missing": ", ".join(item.missing),
                    "how": item.setting or f"{log.engine.title} logs none of them",
                }
                for item in diagnosis.silent
            ],
            ambiguous=[
                {"key": _short(item.key), "meanings": item.meanings, "needs": item.needs} for item in log.ambiguous
            ],
            unrecognised=[{"key": _short(item.key), "nearest": item.nearest} for item in log.unrecognised],
            unrecognised_count=log.unrecognised_count,
            metrics=[
                {"name": name, "key": _short(item.key), "formula": describe(name).formula, "points": len(item)}
                for name, item in sorted(log.series.items())
            ],
            settings=[
                {
                    "name": name,
                    "value": _short(formatting.text(value)),
                    "source": _short(log.configuration.source(name)),
                }
                for name, value in sorted(log.configuration.settings.values.items())
            ],
            source=None if log.configuration.name is None else _short(log.configuration.name),
            notes=log.notes,
            files=[{"file": _short(file), "reader": reader} for file, reader in log.files],
            comparison=None if comparison is None else _comparison(comparison),
        )
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _short(text: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in str(text))
    return shown if len(shown) <= 200 else f"{shown[:197]}…"


def _finding(item: Finding) -> Mapping[str, Any]:
    onset = item.onset
    return {
        "id": item.id,
        "level": item.level,
        "mark": _MARKS[item.level],
        "title": item.title,
        "statement": item.statement,
        "mechanism": item.mechanism,
        "remedy": item.remedy,
        "needs": item.needs,
        "consequences": list(dict.fromkeys(item.extra.get("consequences", []))),
        "onset": None
        if onset is None
        else f"step {onset.step:g}"
        + ("" if onset.low == onset.high else f", between {onset.low:g} and {onset.high:g}"),
        "cost": None
        if item.hours is None
        else (
            f"{formatting.number(item.gpu_hours)} GPU hours"
            if item.gpu_hours is not None
            else f"{formatting.number(item.hours)} hours; how many GPUs is not known"
        ),
        "curves": [{"label": _short(entry.label), "figure": _curve(entry, item)} for entry in item.evidence],
    }


def _comparison(comparison: Comparison) -> Mapping[str, Any]:
    return {
        "name": _short(comparison.name),
        "settings": [
            {"key": _short(key), "this": _short(formatting.text(this)), "other": _short(formatting.text(other))}
            for key, this, other in comparison.settings[:200]
        ],
        "curves": [
            {
                "name": item.name,
                "step": None if item.step is None else f"{item.step:g}",
                "this": formatting.number(item.this),
                "other": formatting.number(item.other),
                "figure": _drawn(
                    [(item.series, "first"), (item.other_series, "second")], item.name, item.step, None, None
                ),
            }
            for item in comparison.partings
        ],
    }


def _curve(entry: Evidence, finding: Finding) -> Markup:
    onset = finding.onset
    between = None if onset is None else (onset.low, onset.high)
    return _drawn([(entry.series, "first")], entry.label, finding.since, between, entry.mark)


def _drawn(
    lines: list[tuple[Series, str]],
    label: str,
    since: float | None,
    between: tuple[float, float] | None,
    mark: float | None,
) -> Markup:
    """Curves over steps as inline SVG; where a run is averaged, its extremes are a band behind it."""
    merged = [(series.merged(_POINTS), kind) for series, kind in lines]
    steps = np.concatenate([series.steps for series, _ in merged])
    values = np.concatenate([np.r_[series.low, series.high] for series, _ in merged])
    values = values[np.isfinite(values)]
    if not len(steps) or not len(values):
        return Markup('<p class="aside">no finite value</p>')
    left, right = float(steps.min()), float(steps.max())
    low, high = float(values.min()), float(values.max())
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if high == low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

    def x(step: float) -> float:
        share = 0.5 if right == left else (min(max(step, left), right) - left) / (right - left)
        return round(_LEFT + share * (_WIDTH - _LEFT - 10), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP), 1)

    parts = [
        f'<svg role="img" aria-label="{escape(_short(label))} over steps" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 10}"/>',
    ]
    if between is not None:
        start, end = x(between[0]), x(between[1])
        parts.append(
            f'<rect class="between" x="{start}" y="{_TOP}" width="{max(end - start, 1):.1f}" '
            f'height="{_HEIGHT - _BOTTOM - _TOP}"/>'
        )
    if mark is not None:
        parts.append(f'<path class="mark" d="M{_LEFT} {y(mark)}H{_WIDTH - 10}"/>')
    for series, kind in merged:
        parts += _line(series, kind, x, y)
    if since is not None and left <= since <= right:
        parts.append(f'<path class="since" d="M{x(since)} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
    for value in (low + 0.04 * (high - low) / 1.08, high - 0.04 * (high - low) / 1.08):
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{formatting.number(value)}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}">step {left:g}</text>')
    parts.append(f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 6}" text-anchor="end">{right:g}</text></svg>')
    return Markup("".join(parts))


def _line(series: Series, kind: str, x: Any, y: Any) -> list[str]:
    parts = []
    finite = np.isfinite(series.values)
    if (series.high > series.low).any():
        chosen = np.flatnonzero(finite)
        upper = [f"{x(series.steps[i])} {y(series.high[i])}" for i in chosen]
        lower = [f"{x(series.steps[i])} {y(series.low[i])}" for i in chosen[::-1]]
        parts.append(f'<path class="range {kind}" d="M{"L".join(upper + lower)}Z"/>')
    path, pen = [], "M"
    for i in range(len(series)):
        if not finite[i]:
            # A gap in a curve that is logged now and then is none; one that was not finite is.
            pen = "M" if series.bad[i] else pen
            continue
        path.append(f"{pen}{x(series.steps[i])} {y(series.values[i])}")
        pen = "L"
    if path:
        parts.append(f'<path class="curve {kind}" d="{"".join(path)}"/>')
    if finite.sum() == 1:
        only = int(np.flatnonzero(finite)[0])
        parts.append(f'<circle class="{kind}" cx="{x(series.steps[only])}" cy="{y(series.values[only])}" r="3"/>')
    for i in np.flatnonzero(series.bad > 0)[:_POINTS]:
        parts.append(f'<path class="bad" d="M{x(series.steps[i])} {_HEIGHT - _BOTTOM}v-8"/>')
    return parts
