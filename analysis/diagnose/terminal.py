"""The findings as a page of plain sentences."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

import numpy as np

from analysis.diagnose.comparison import Comparison
from analysis.diagnose.diagnosis import Diagnosis
from analysis.diagnose.names import describe
from analysis.diagnose.rule import Evidence, Finding, shown
from analysis.diagnose.series import Series

__all__ = ["page", "sparkline"]

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_MARKS = {"problem": "✗", "warning": "!", "note": "·"}
_PLAIN_MARKS = {"problem": "x", "warning": "!", "note": "-"}


def sparkline(series: Series, width: int = 32, *, ascii_only: bool = False) -> str:
    """A curve in one line; `?` stands for what was not finite.

    >>> sparkline(Series.of("loss", [0, 1, 2, 3], [0.0, 1.0, float("nan"), 3.0]))
    '▁▃?█'
    """
    bars = _PLAIN_BARS if ascii_only else _BARS
    drawn = series.merged(width)
    finite = drawn.values[np.isfinite(drawn.values)]
    if not len(finite):
        return "?" * len(drawn)
    low, high = float(finite.min()), float(finite.max())
    span = high - low
    return "".join(
        "?"
        if not np.isfinite(value)
        else bars[0 if span == 0 else min(int((value - low) / span * (len(bars) - 1) + 0.5), len(bars) - 1)]
        for value in drawn.values
    )


def page(
    diagnosis: Diagnosis,
    *,
    comparison: Comparison | None = None,
    ascii_only: bool = False,
    width: int | None = None,
) -> str:
    """Everything a reader needs, worst first.

    Args:
        diagnosis: what was found.
        comparison: with another run.
        ascii_only: for terminals without Unicode.
        width: columns; `None`: the terminal's, at most 100.
    """
    columns = width if width is not None else min(shutil.get_terminal_size((100, 24)).columns, 100)
    log = diagnosis.log
    steps = log.steps
    lines = [
        f"{_safe(log.name)}: {log.engine.title}, {log.rows:,} rows"
        + ("" if steps is None else f", steps {steps[0]:g} to {steps[1]:g}")
    ]
    if log.configuration.settings.values:
        lines.append(f"Configuration: {_safe(log.configuration.name or '')}")
    lines += [f"Note: {_safe(note)}." for note in log.notes]
    lines.append("")
    if not diagnosis.findings:
        lines.append("Nothing found by the rules that could look.")
    for item in diagnosis.findings:
        lines += [*_finding(item, ascii_only), ""]
    if comparison is not None:
        lines += [*_comparison(comparison), ""]
    if diagnosis.silent:
        lines.append("Not logged, so these rules are silent:")
        for entry in diagnosis.silent:
            names = ", ".join(entry.missing[:3]) + (", …" if len(entry.missing) > 3 else "")
            how = entry.setting or f"{log.engine.title} logs none of them"
            lines.append(f"  {entry.rule}: needs {names} ({how})")
        lines.append("")
    for ambiguity in log.ambiguous:
        lines.append(
            f"Ambiguous: {_safe(ambiguity.key)} may be {' or '.join(ambiguity.meanings)}; --config with "
            f"{ambiguity.needs} tells."
        )
    if log.unrecognised_count:
        lines.append(f"Keys without a meaning here: {log.unrecognised_count}")
        for key in log.unrecognised[:8]:
            lines.append(f"  {_safe(key.key)}" + (f" (nearest known: {key.nearest})" if key.nearest else ""))
        if log.unrecognised_count > 8:
            lines.append("  … (--json lists more)")
    text = "\n".join(_wrapped(line, columns) for line in lines).rstrip() + "\n"
    return _plain(text) if ascii_only else text


def _finding(item: Finding, ascii_only: bool) -> list[str]:
    mark = (_PLAIN_MARKS if ascii_only else _MARKS)[item.level]
    lines = [f"{mark} {item.level.upper()}  {item.title}  [{item.id}]", f"  {_safe(item.statement)}"]
    if item.onset is not None:
        onset = item.onset
        between = "" if onset.low == onset.high else f", between {onset.low:g} and {onset.high:g}"
        lines.append(f"  It began at step {onset.step:g}{between}.")
    if item.hours is not None:
        cost = (
            f"{item.gpu_hours:,.1f} GPU hours"
            if item.gpu_hours is not None
            else f"{item.hours:,.1f} hours (times GPUs)"
        )
        lines.append(f"  Since then: {cost}.")
    lines += [_curve(entry, ascii_only) for entry in item.evidence]
    lines.append(f"  Why: {item.mechanism}")
    lines.append(f"  What to do: {item.remedy}")
    if item.needs:
        lines.append(f"  To say more it takes {' and '.join(item.needs)}.")
    consequences: Sequence[str] = item.extra.get("consequences", [])
    if consequences:
        lines.append(f"  Its consequences, not listed on their own: {', '.join(dict.fromkeys(consequences))}.")
    return lines


def _comparison(comparison: Comparison) -> list[str]:
    lines = [f"Against {_safe(comparison.name)}:"]
    for key, this, other in comparison.settings[:40]:
        lines.append(f"  {_safe(key)}: {_safe(str(this))} here, {_safe(str(other))} there")
    if not comparison.settings:
        lines.append("  no setting that is known of both differs")
    for item in comparison.partings:
        where = "does not part" if item.step is None else f"parts at step {item.step:g}"
        lines.append(f"  {item.name}: {where}; ends at {shown(item.this)} here, {shown(item.other)} there")
    return lines


def _curve(entry: Evidence, ascii_only: bool) -> str:
    finite = entry.series.values[np.isfinite(entry.series.values)]
    ends = f"{shown(float(finite[0]))} to {shown(float(finite[-1]))}" if len(finite) else "no finite value"
    unit = describe(entry.name).unit
    words = "" if unit == "1" else f" {unit}"
    return f"    {sparkline(entry.series, ascii_only=ascii_only)}  {_safe(entry.label)}: {ends}{words}"


def _safe(text: str) -> str:
    """Text from outside without control characters, and not endless."""
    shown_text = "".join(character if character.isprintable() else "?" for character in text)
    return shown_text if len(shown_text) <= 2000 else f"{shown_text[:1997]}…"


def _wrapped(line: str, columns: int) -> str:
    if len(line) <= columns or line.startswith("    "):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line.strip(), columns, initial_indent=indent, subsequent_indent=f"{indent}  ")


def _plain(text: str) -> str:
    for special, plain in (("‖", "||"), ("−", "-"), ("…", "..."), ("·", "*")):
        text = text.replace(special, plain)
    return text.encode("ascii", "replace").decode("ascii")
