"""A sign of life, but only when something takes long enough to wonder about."""

from __future__ import annotations

import multiprocessing
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["LateProgress"]

_PATIENCE = 2.0
"""Seconds without a bar."""
_INTERVAL = 30.0
"""Seconds between two lines where there is no terminal for a bar."""


class LateProgress:
    """Shows a bar with the time left on a terminal, from the third second on; elsewhere a line every half minute.

    Args:
        label: what is being done, in a few words.
        total: how many steps it takes.
    """

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._spoke = self._started
        self._terminal = sys.stderr.isatty()
        # Workers leave it to the process that started them: their steps are not the user's.
        self._mute = multiprocessing.current_process().name != "MainProcess"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """Record that `steps` more are done."""
        self._done += steps
        if self._mute:
            return
        if not self._terminal:
            self._report()
            return
        if self._bar is None:
            if time.monotonic() - self._started < _PATIENCE:
                return
            self._open()
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, completed=self._done)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._spoke >= _INTERVAL and self._done < self._total:
            self._spoke = now
            line = f"{self._label}: {self._done} of {self._total} after {now - self._started:.0f} s"
            print(line, file=sys.stderr, flush=True)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=self._total)
        self._bar.start()
