"""What a rule is, what it may ask of a run, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.diagnose.log import Log
from analysis.diagnose.names import describe
from analysis.diagnose.onset import ChangePoint, change_point
from analysis.diagnose.series import Series
from testbed.registry import Registry

__all__ = ["LEVELS", "Case", "Evidence", "Finding", "Rule", "Window", "ends", "lasting", "rule", "rules", "shown"]

LEVELS = ("note", "warning", "problem")
"""From mild to severe."""


@dataclass(frozen=True)
class Evidence:
    """A curve a finding rests on.

    Attributes:
        name: canonical name.
        series: its points.
        label: what a reader calls it.
        mark: a level worth drawing, such as a threshold.
    """

    name: str
    series: Series
    label: str
    mark: float | None = None


@dataclass
class Finding:
    """One thing that a rule found.

    Attributes:
        id: the rule's id.
        level: `note`, `warning` or `problem`.
        title: one line.
        statement: what was seen, with numbers.
        mechanism: why that is so.
        remedy: what to do.
        evidence: curves.
        onset: where it began, where that can be told.
        since: the step it began at, also where there was no change because it was so from the start.
        needs: what it would take to say more.
        explains: ids of findings that are this one's consequences.
        gpu_hours: accelerator hours since it began, where times are logged and accelerators known.
        hours: hours since it began, where times are logged.
    """

    id: str
    level: str
    title: str
    statement: str
    remedy: str
    mechanism: str = ""
    evidence: list[Evidence] = field(default_factory=list)
    onset: ChangePoint | None = None
    since: float | None = None
    needs: list[str] = field(default_factory=list)
    explains: tuple[str, ...] = ()
    gpu_hours: float | None = None
    hours: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """The beginning and the recent end of a curve.

    Attributes:
        first, last: medians of the two ends.
        change: the change between them, if there is one.
        correlation: Spearman's rank correlation with the step.
        points: finite points.
    """

    first: float
    last: float
    change: ChangePoint | None
    correlation: float
    points: int

    def began(self, found: Series) -> float:
        """The step a trend began at: its change, or the first step of a curve that only goes one way."""
        return self.change.step if self.change is not None else float(found.steps[0])


class Case:
    """A log as rules ask about it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.engine = log.engine
        self._windows: dict[str, Window | None] = {}

    # -- what is logged

    def has(self, *names: str) -> bool:
        """Whether any of the names has points."""
        return any(name in self.log.series for name in names)

    def get(self, *names: str) -> Series | None:
        """The points of the first name that is logged."""
        for name in names:
            if name in self.log.series:
                return self.log.series[name]
        return None

    def finite(self, *names: str) -> Series | None:
        """The finite points of the first name that has at least one."""
        for name in names:
            if name in self.log.series:
                found = self.log.series[name].finite()
                if len(found):
                    return found
        return None

    def named(self, *names: str) -> Iterator[tuple[str, Series]]:
        """Every one of the names that has finite points."""
        for name in names:
            found = self.finite(name)
            if found is not None:
                yield name, found

    def key(self, name: str) -> str:
        """The key the log has it under."""
        found = self.log.series.get(name)
        return found.key if found is not None else name

    def window(self, name: str) -> Window | None:
        """Both ends of a curve and the change between them; `None` where it has fewer than 8 finite points."""
        if name not in self._windows:
            found = self.finite(name)
            self._windows[name] = None if found is None or len(found) < 8 else window_of(found)
        return self._windows[name]

    def recent(self, name: str) -> float:
        """Median of the recent end, also of short curves; NaN without points."""
        found = self.finite(name)
        return float(np.median(found.values[-ends(len(found)) :])) if found is not None else math.nan

    def evidence(self, *names: str, mark: float | None = None) -> list[Evidence]:
        """Curves of the names that are logged."""
        return [
            Evidence(name, self.log.series[name], self.log.series[name].key, mark if place == 0 else None)
            for place, name in enumerate(names)
            if name in self.log.series
        ]

    # -- what was asked for

    def setting(self, name: str) -> Any:
        """A canonical setting, or None."""
        return self.log.configuration.get(name)

    def number(self, name: str) -> float | None:
        """A canonical setting as a number, or None."""
        return self.log.configuration.number(name)

    def source(self, name: str) -> str:
        """The key a setting comes from."""
        return self.log.configuration.source(name)

    def takes(self, *settings: str) -> list[str]:
        """What to give so that these settings are known, in the engine's own keys."""
        asked = []
        for name in settings:
            if self.setting(name) is not None:
                continue
            keys = self.engine.updates if name == "updates_per_rollout" else self.engine.settings.get(name, ())[:1]
            if name in {"clip_low", "clip_high"} and not keys:
                keys = ("epsilon", "epsilon_high") if self.engine.name in {"trl", "ms-swift"} else ()
            asked.append(" and ".join(keys) if keys else name)
        return [f"--config with {', '.join(asked)}"] if asked else []

    @property
    def sequence_ratio(self) -> bool | None:
        """Whether the ratio is a sequence's; `None`: not known."""
        level, loss = self.setting("ratio_level"), str(self.setting("loss") or "").lower()
        if level is not None:
            return str(level).startswith("seq")
        if "gspo" in loss or loss == "luspo":
            return True
        return False if loss else None

    @property
    def one_update(self) -> bool | None:
        """Whether there is one update per rollout; `None`: not known."""
        updates = self.number("updates_per_rollout")
        return None if updates is None else updates <= 1.0 + 1e-9

    @property
    def off_policy(self) -> bool:
        """Whether responses are known to come from an older policy, so that a ratio of 1 is not expected."""
        given = self.setting("asynchronous")
        if given is not None and str(given).lower() not in {"false", "0", "0.0"}:
            return True
        for name in ("staleness/mean", "staleness/max"):
            found = self.finite(name)
            if found is not None and found.high.max() > 0:
                return True
        return False


def ends(points: int) -> int:
    """How many points count as an end of a curve: a tenth to a fifth, at least three, at most fifty."""
    return max(3, min(50, points // 6))


def window_of(found: Series) -> Window:
    """Both ends of a curve."""
    width = ends(len(found))
    values = found.values
    centred = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = float(np.corrcoef(np.arange(len(values)), centred)[0, 1]) if np.ptp(values) > 0 else 0.0
    return Window(
        float(np.median(values[:width])),
        float(np.median(values[-width:])),
        change_point(found.steps, values),
        correlation,
        len(values),
    )


def lasting(found: Series, threshold: float) -> float:
    """The step from which on a curve, smoothed over five points, stays at or above a threshold; it has to end there."""
    values = found.values
    padded = np.r_[np.full(2, np.nan), values, np.full(2, np.nan)]
    smooth = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    below = np.flatnonzero(smooth < threshold)
    return float(found.steps[min(below[-1] + 1, len(values) - 1)]) if len(below) else float(found.steps[0])


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: its name in reports.
        title: what it looks for.
        mechanism: why that happens.
        reads: names it needs, each entry a tuple of which one is enough; without them it is silent.
        threshold: what counts, and why.
        remedy: what to do.
        silent: where it says nothing although something may be wrong.
        check: the rule itself; it is only called where what it needs is logged.
        rank: of findings equally severe, the lower rank comes first: causes before consequences.
        settings: canonical settings it asks for.
    """

    id: str
    title: str
    mechanism: str
    reads: tuple[tuple[str, ...], ...]
    threshold: str
    remedy: str
    silent: str
    check: Callable[[Case], Iterable[Finding]]
    rank: int = 50
    settings: tuple[str, ...] = ()

    def finding(self, level: str, statement: str, **more: Any) -> Finding:
        """A finding of this rule."""
        title = more.pop("title", self.title)
        remedy = more.pop("remedy", self.remedy)
        return Finding(
            self.id, level, title, statement, remedy, mechanism=more.pop("mechanism", self.mechanism), **more
        )

    def missing(self, case: Case) -> list[tuple[str, ...]]:
        """What it needs and the log lacks."""
        return [names for names in self.reads if not case.has(*names)]


rules: Registry[Rule] = Registry("rule", "analysis.diagnose.rules")
"""Every rule; a file of `analysis.diagnose.rules` each."""


def rule(item: Rule) -> Rule:
    """File a rule under its id, after checking that every name it reads exists."""
    for names in item.reads:
        for name in names:
            describe(name)
    rules.register(item.id)(item)
    return item


def shown(value: float) -> str:
    """A number for a sentence: three significant digits, no exponent where there need not be one.

    >>> shown(0.12345), shown(1234567.0), shown(1.2e-7), shown(0.0)
    ('0.123', '1.23e+06', '1.2e-07', '0')
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return f"{value:.3g}"
