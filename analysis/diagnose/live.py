"""The same rules while a run trains: fed row by row, within a share of its time, each finding said once.

For TRL, `TestbedCallback` of `analysis.diagnose.trl_callback`; for verl, `analysis.diagnose.verl_logger`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from analysis.diagnose.configuration import read_configuration
from analysis.diagnose.diagnosis import Diagnosis, diagnose_log
from analysis.diagnose.log import Collector, named
from analysis.diagnose.rule import LEVELS, Finding, rules
from analysis.diagnose.series import block_of_rows
from testbed.errors import ConfigError, TestbedWarning, UnknownNameError

__all__ = ["LiveDiagnosis", "RunWarning"]


class RunWarning(TestbedWarning):
    """Something is wrong with the run that is being trained."""


def _warn(finding: Finding) -> None:
    warnings.warn(
        f"{finding.level}: {finding.title} [{finding.id}]. {finding.statement} {finding.remedy}",
        RunWarning,
        stacklevel=4,
    )


class LiveDiagnosis:
    """Rules that watch a run.

    The rules are asked when the time they took so far is less than `share` of the time since the first row, so that a
    run of fast steps is looked at less often, not slowed down.

    Args:
        config: the run's configuration, as `diagnose` takes it.
        stop_on: a level, or ids of rules: a finding of that level or worse, or of those rules, sets `should_stop`.
        share: most of the run's time that the rules may take.
        level: the least level that is reported.
        report: called with every finding once, and again when it gets worse; a warning by default.
        clock: seconds, for tests.

    Raises:
        ConfigError: a level or a share is out of range.
        UnknownNameError: `stop_on` names no rule.

    Example:
        >>> live = LiveDiagnosis(stop_on="problem", share=1.0, report=lambda finding: print(finding.id))
        >>> for step in range(20):
        ...     live.update(step, {"reward": 0.1 * (step % 3), "entropy": 1.0, "completions/clipped_ratio": 1.0})
        truncation
        >>> live.should_stop
        True
    """

    def __init__(
        self,
        config: Any = None,
        *,
        stop_on: str | Iterable[str] | None = None,
        share: float = 0.005,
        level: str = "warning",
        report: Callable[[Finding], None] = _warn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
        if not 0 < share <= 1:
            raise ConfigError(f"share is {share!r}; expected a share of the run's time above 0, such as 0.005")
        self.stop_level = stop_on if isinstance(stop_on, str) and stop_on in LEVELS else None
        named_rules = () if stop_on is None or self.stop_level else (stop_on,) if isinstance(stop_on, str) else stop_on
        self.stop_rules = frozenset(named_rules)
        for name in self.stop_rules:
            if name not in rules:
                raise UnknownNameError("rule or level", name, [*rules.names(), *LEVELS])
        self.should_stop = False
        self.stopped_by: Finding | None = None
        self.latest: Diagnosis | None = None
        self._config, self._share, self._report, self._clock = config, share, report, clock
        self._level = LEVELS.index(level)
        self._said: dict[str, int] = {}
        self._pending: list[Mapping[str, object]] = []
        self._collector = Collector()
        self._started: float | None = None
        # The first look imports what it needs.
        self._spent, self._last = 0.0, 0.2

    def update(self, step: int, row: Mapping[str, object]) -> None:
        """Take a row of metrics under the engine's keys, and look at the run if there is time."""
        now = self._clock()
        if self._started is None:
            self._started = now
        self._pending.append({**row, "step": step})
        if self._collector.rows + len(self._pending) < _FEWEST:
            return
        if self._spent + self._last > self._share * (now - self._started) and self._share < 1:
            return
        self.look()

    def look(self) -> Diagnosis | None:
        """Ask the rules now, whatever it costs; `None` while nothing that is logged has a meaning."""
        begun = self._clock()
        self._collector.take(block_of_rows(self._pending))
        self._pending = []
        try:
            log = named("the run", self._collector, read_configuration(self._config, {}))
            self.latest = diagnose_log(log)
        except ConfigError:
            # Nothing to say about these keys yet; a run is not stopped for that.
            self.latest = None
        for finding in self.latest.findings if self.latest is not None else ():
            self._take(finding)
        self._last = self._clock() - begun
        self._spent += self._last
        return self.latest

    def _take(self, finding: Finding) -> None:
        level = LEVELS.index(finding.level)
        stops = finding.id in self.stop_rules or (
            self.stop_level is not None and level >= LEVELS.index(self.stop_level)
        )
        if stops and not self.should_stop:
            self.should_stop, self.stopped_by = True, finding
        if level >= self._level and level > self._said.get(finding.id, -1):
            self._said[finding.id] = level
            self._report(finding)


_FEWEST = 12
"""Rows before the first look: fewer have no change that could be told from noise."""
