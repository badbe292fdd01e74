"""Values of expressions that are no fractions, from worker processes with hard limits on time and memory.

A worker that overruns is killed and another takes its place. What it is sent is a tree, never text.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

from envs.answers.expressions import Tree
from testbed.errors import TestbedError

__all__ = ["Overrun", "Value", "Workers", "values_agree"]

Value = tuple[Decimal, Decimal] | None
"""Real and imaginary part, or `None` where an expression has no value."""

_DIGITS = 50
_REMEMBERED = 4096


class Overrun(Exception):
    """A worker did not live to give a value; `reason` is `time` or `died`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def values_agree(one: tuple[Value, ...], other: tuple[Value, ...]) -> bool:
    """Whether two expressions have the same value at all points where they have any, and have some."""
    if len(one) != len(other):
        # A constant may be written with letters that cancel: it has the same value at every point.
        one, other = (tuple(values) * (max(len(one), len(other)) // len(values)) for values in (one, other))
    known = False
    with localcontext() as context:
        context.prec = _DIGITS + 20
        for first, second in zip(one, other, strict=True):
            if first is None or second is None:
                if first is not second:
                    return False
                continue
            known = True
            distance = max(abs(first[0] - second[0]), abs(first[1] - second[1]))
            size = max(abs(part) for part in (*first, *second))
            if distance > size * Decimal(10) ** (5 - _DIGITS):
                return False
    return known


class Workers:
    """A pool of processes; they start when a value is first asked for.

    Args:
        count: processes that may run at once.
        seconds: wall-clock limit for one expression.
        megabytes: address space of a worker beyond which its allocations fail (not enforced on Windows and macOS).
    """

    def __init__(self, count: int, seconds: float, megabytes: int) -> None:
        self.count = count
        self.seconds = seconds
        self.megabytes = megabytes
        self._known: dict[Tree, tuple[Value, ...]] = {}
        # A place holds a worker, or None where the next request has to start one.
        self.places: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(count):
            self.places.put(None)

    def close(self) -> None:
        """End the workers; new ones start when they are needed."""
        for place in [self.places.get() for _ in range(self.count)]:
            if place is not None:
                place.stop()
            self.places.put(None)

    def within(self, limits: float) -> Callable[[Tree], tuple[Value, ...]]:
        """`values`, for so many time limits in all from now on: an answer may be a list of slow expressions."""
        end = time.monotonic() + limits * self.seconds

        def values(tree: Tree) -> tuple[Value, ...]:
            if tree not in self._known and time.monotonic() > end:
                raise Overrun("time")
            return self.values(tree)

        return values

    def values(self, tree: Tree) -> tuple[Value, ...]:
        """The values of an expression at the points of comparison, one if it is a constant.

        Raises:
            Overrun: it took too much time or memory.
        """
        found = self._known.get(tree)
        if found is None:
            found = self._ask(tree)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[tree] = found
        return found

    def _ask(self, tree: Tree) -> tuple[Value, ...]:
        place = self.places.get()
        try:
            if place is None or not place.alive:
                place = Worker(self.megabytes, self.seconds)
            return place.values(tree)
        finally:
            self.places.put(place)


class Worker:
    """One process that evaluates trees until it is killed or ends."""

    STARTUP_SECONDS = 60.0

    def __init__(self, megabytes: int, seconds: float) -> None:
        self.seconds = seconds
        self._overran = False
        script = Path(__file__).with_name("_worker.py")
        # -P: the folder of the script, this package's, must not become a place to import from.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(megabytes), str(2 * seconds + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.stop = weakref.finalize(self, _end, self.process)
        if self._ask(None, self.STARTUP_SECONDS) != "ready\n":
            self.stop()
            raise TestbedError(
                f"a grading worker did not start within {self.STARTUP_SECONDS:.0f} s and {megabytes} MB; "
                "raise megabytes, and check that `import mpmath` works"
            )

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self.process.poll() is None

    def values(self, tree: Tree) -> tuple[Value, ...]:
        """The values of a tree; a worker that overruns is killed."""
        line = self._ask(json.dumps(_jsonable(tree)) + "\n", self.seconds)
        if not line or self._overran:
            self.stop()
        if not line:
            raise Overrun("time" if self._overran else "died")
        return tuple(pair and (Decimal(pair[0]), Decimal(pair[1])) for pair in json.loads(line))

    def _ask(self, request: str | None, seconds: float) -> str:
        """The next line of the worker, empty if it did not live to write it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        watchdog = threading.Timer(seconds, self._kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            if request is not None:
                self.process.stdin.write(request)
                self.process.stdin.flush()
            return self.process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            watchdog.cancel()
            # A watchdog that has just gone off must not do so in the middle of the next request.
            watchdog.join()

    def _kill(self) -> None:
        self._overran = True
        self.process.kill()


def _jsonable(tree: Tree) -> list[Any]:
    return [
        _jsonable(part) if isinstance(part, tuple) else str(part) if isinstance(part, Fraction) else part
        for part in tree
    ]


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # A request that the dead worker never read may still be buffered.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
