"""From a log to findings: every rule is asked, consequences are put under their causes, the worst comes first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.diagnose.log import Log, read_log
from analysis.diagnose.names import describe
from analysis.diagnose.rule import LEVELS, Case, Evidence, Finding, Rule, rules
from analysis.diagnose.series import Series

__all__ = ["Diagnosis", "NotLogged", "diagnose", "diagnose_log"]


@dataclass(frozen=True)
class NotLogged:
    """A rule that could not look, and what would let it.

    Attributes:
        rule: its id.
        missing: canonical names, one of which it needs.
        setting: what makes this engine log one of them; `None`: this engine logs none.
    """

    rule: str
    missing: tuple[str, ...]
    setting: str | None


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        log: the log it was found in.
        findings: worst first.
        silent: rules that could not look.
    """

    log: Log
    findings: list[Finding] = field(default_factory=list)
    silent: list[NotLogged] = field(default_factory=list)

    @property
    def worst(self) -> str | None:
        """The level of the worst finding; `None`: there is none."""
        return self.findings[0].level if self.findings else None

    def at_least(self, level: str) -> list[Finding]:
        """Findings of a level or worse."""
        return [item for item in self.findings if LEVELS.index(item.level) >= LEVELS.index(level)]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data: no NaN, no infinity."""
        steps = self.log.steps
        return {
            "findings": [_finding(item) for item in self.findings],
            "log": {
                "name": self.log.name,
                "engine": self.log.engine.name,
                "files": [{"file": file, "reader": reader} for file, reader in self.log.files],
                "rows": self.log.rows,
                "first_step": None if steps is None else steps[0],
                "last_step": None if steps is None else steps[1],
                "metrics": {name: item.key for name, item in sorted(self.log.series.items())},
                "notes": self.log.notes,
            },
            "configuration": {
                "source": self.log.configuration.name,
                "settings": {
                    name: {"value": _plain(value), "from": self.log.configuration.source(name)}
                    for name, value in sorted(self.log.configuration.settings.values.items())
                },
            },
            "not_logged": [
                {"rule": item.rule, "missing": list(item.missing), "setting": item.setting} for item in self.silent
            ],
            "ambiguous": [
                {"key": item.key, "meanings": list(item.meanings), "needs": item.needs} for item in self.log.ambiguous
            ],
            "unrecognised": [{"key": item.key, "nearest": item.nearest} for item in self.log.unrecognised],
            "unrecognised_count": self.log.unrecognised_count,
        }

    def to_text(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)


def diagnose(
    log: str | Path | Sequence[str | Path],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    standard_input: object = None,
) -> Diagnosis:
    """Read a run's log and say what went wrong in it.

    Args:
        log: a file, a folder, several of either, or "-" for standard input; what it is is told by its content.
        config: the run's configuration: a YAML or JSON file, a command line, or a mapping, with nested or dotted keys;
            `None`: what lies beside the log under a known name, if anything does.
        standard_input: where "-" is read from; `None`: the process's own.

    Raises:
        ConfigError: there is nothing to read, it is no log of reinforcement learning, or the configuration is none.
    """
    return diagnose_log(read_log(log, config, standard_input=standard_input))  # type: ignore[arg-type]


def diagnose_log(log: Log) -> Diagnosis:
    """Ask every rule about a log that has been read."""
    case = Case(log)
    made = Diagnosis(log)
    found: list[tuple[Rule, Finding]] = []
    for name in rules.names():
        item = rules[name]
        lacking = item.missing(case)
        if lacking:
            names = tuple(dict.fromkeys(entry for group in lacking for entry in group))
            made.silent.append(NotLogged(name, names, _setting(log, names)))
            continue
        found += [(item, finding) for finding in item.check(case)]
    for item, finding in found:
        blamed = next((cause for _, cause in found if _consequence(finding, cause)), None)
        if blamed is not None and _not_worse(finding, blamed):
            blamed.extra.setdefault("consequences", []).append(finding.id)
            continue
        finding.extra["rank"] = item.rank
        _hours(case, finding)
        made.findings.append(finding)
    made.findings.sort(key=lambda item: (-LEVELS.index(item.level), item.extra.pop("rank"), item.id))
    return made


def _consequence(finding: Finding, cause: Finding) -> bool:
    """Whether one finding is explained by another, which then began no later."""
    if finding is cause or finding.id not in cause.explains:
        return False
    began = cause.onset.low if cause.onset is not None else cause.since
    return finding.since is None or began is None or finding.since >= began


def _not_worse(finding: Finding, cause: Finding) -> bool:
    return LEVELS.index(finding.level) <= LEVELS.index(cause.level) or cause.level != "note"


def _setting(log: Log, names: tuple[str, ...]) -> str | None:
    """What makes the engine log one of the names: a setting, or nothing but its key where it does so by itself."""
    for name in names:
        if name in log.engine.logging:
            return log.engine.logging[name]
    usual = next((entry.key for name in names for entry in log.engine.table.keys if entry.name == name), None)
    return None if usual is None else f"{log.engine.title} logs it as {usual}"


def _hours(case: Case, finding: Finding) -> None:
    """Hours since a finding began, from durations of steps or from clocks."""
    if finding.since is None or finding.level == "note":
        return
    per_step = case.finite("time/step")
    hours = None
    if per_step is not None:
        after = per_step.after(finding.since)
        if len(after):
            before = per_step.steps[per_step.steps < finding.since]
            start = float(before[-1]) if len(before) else float(after.steps[0]) - 1.0
            gaps = np.diff(np.r_[start, after.steps])
            hours = float((np.clip(gaps, 0, None) * after.values).sum()) / 3600
    else:
        clock = case.finite("time/elapsed", "time/clock")
        if clock is not None:
            after = clock.after(finding.since)
            if len(after) >= 2:
                hours = float(after.values[-1] - after.values[0]) / 3600
    if hours is None or not math.isfinite(hours) or hours < 0:
        return
    finding.hours = hours
    gpus = case.number("gpus")
    if gpus is not None and gpus > 0:
        finding.gpu_hours = hours * gpus


def _finding(item: Finding) -> dict[str, Any]:
    onset = item.onset
    return {
        "id": item.id,
        "level": item.level,
        "title": item.title,
        "statement": item.statement,
        "mechanism": item.mechanism,
        "remedy": item.remedy,
        "since": _plain(item.since),
        "onset": None
        if onset is None
        else {"step": _plain(onset.step), "low": _plain(onset.low), "high": _plain(onset.high)},
        "hours": _plain(item.hours),
        "gpu_hours": _plain(item.gpu_hours),
        "needs": item.needs,
        "consequences": item.extra.get("consequences", []),
        "extra": {key: _plain(value) for key, value in item.extra.items() if key != "consequences"},
        "evidence": [_evidence(entry) for entry in item.evidence],
    }


def _evidence(entry: Evidence) -> dict[str, Any]:
    drawn: Series = entry.series.merged(200)
    return {
        "name": entry.name,
        "key": entry.label,
        "unit": describe(entry.name).unit,
        "steps": [_plain(value) for value in drawn.steps.tolist()],
        "values": [_plain(value) for value in drawn.values.tolist()],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return (int(value) if value == int(value) and abs(value) < 1e15 else value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
