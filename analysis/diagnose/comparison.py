"""Two runs beside each other: which settings differ, and where the curves part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.diagnose.log import Log
from analysis.diagnose.onset import change_point
from analysis.diagnose.series import Series

__all__ = ["Comparison", "Parting", "compare"]


@dataclass(frozen=True)
class Parting:
    """A quantity of two runs.

    Attributes:
        name: canonical name.
        step: from which step on the runs differ by more than their noise; `None`: they do not.
        this, other: medians of the recent end.
        series, other_series: the points.
    """

    name: str
    step: float | None
    this: float
    other: float
    series: Series
    other_series: Series


@dataclass
class Comparison:
    """What differs between two runs.

    Attributes:
        name: the other run.
        settings: key, value here, value there; `None` where it is not given.
        partings: quantities that both log, the earliest parting first.
    """

    name: str
    settings: list[tuple[str, Any, Any]] = field(default_factory=list)
    partings: list[Parting] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "against": self.name,
            "settings": [
                {"key": key, "this": _plain(this), "other": _plain(other)} for key, this, other in self.settings
            ],
            "curves": [
                {"name": item.name, "parts_at": item.step, "this": _plain(item.this), "other": _plain(item.other)}
                for item in self.partings
            ],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def compare(log: Log, other: Log) -> Comparison:
    """What differs between two runs."""
    made = Comparison(other.name)
    keys = sorted(set(log.configuration.flat) | set(other.configuration.flat))
    for key in keys:
        this, that = log.configuration.flat.get(key), other.configuration.flat.get(key)
        if this != that:
            made.settings.append((key, this, that))
    for name in log.series:
        if name.startswith("time/") or name not in other.series:
            continue
        first, second = log.series[name].finite(), other.series[name].finite()
        if len(first) >= 3 and len(second) >= 3:
            made.partings.append(
                Parting(name, _parting(first, second), _end(first), _end(second), log.series[name], other.series[name])
            )
    made.partings.sort(key=lambda item: (item.step is None, item.step if item.step is not None else 0.0, item.name))
    return made


def _end(found: Series) -> float:
    return float(np.median(found.values[-max(3, min(50, len(found) // 6)) :]))


def _parting(first: Series, second: Series) -> float | None:
    """The step from which two curves differ: at once, or by a change of their difference."""
    low, high = max(first.steps[0], second.steps[0]), min(first.steps[-1], second.steps[-1])
    steps = first.steps[(first.steps >= low) & (first.steps <= high)]
    if len(steps) < 3:
        return None
    difference = np.interp(steps, first.steps, first.values) - np.interp(steps, second.steps, second.values)
    if not difference.any():
        return None
    noise = 1.4826 * float(np.median(np.abs(np.diff(difference)))) / math.sqrt(2)
    head = difference[: max(3, min(10, len(difference) // 5))]
    if abs(float(head.mean())) > 4 * noise / math.sqrt(len(head)) and np.all(np.sign(head) == np.sign(head[0])):
        return float(steps[0])
    found = change_point(steps, difference)
    return None if found is None else found.step
