"""How the benchmarks time: programs take turns on one core, and processor time counts, not what others take of it.

Only ratios of one run are comparable between machines, and only medians over the turns are reported.
"""

from __future__ import annotations

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["PeakMemory", "Timing", "machine_facts", "markdown_table", "pin_to_one_core", "take_turns"]


@dataclass(frozen=True)
class Timing:
    """Replica-updates per second of one program, one number a turn."""

    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the turns."""
        return statistics.median(self.rates)

    def over(self, other: Timing) -> float:
        """Median of the ratios of the same turn."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


def take_turns(programs: Mapping[str, Callable[[], float]], turns: int) -> dict[str, Timing]:
    """Work per second of processor time of each program, once per turn after an unrecorded one.

    Args:
        programs: name to a function that does some work and returns how much, in the unit to be reported per second.
        turns: recorded repeats.
    """
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(turns + 1):
        for name, program in programs.items():
            started = time.process_time()
            work = program()
            if turn:
                rates[name].append(work / (time.process_time() - started))
    return {name: Timing(tuple(values)) for name, values in rates.items()}


class PeakMemory:
    """The largest sum of resident memory over this process and all its descendants, read many times a second.

    Pages that processes share count once for each, so the sum is an upper bound. Linux only.

    Attributes:
        total: bytes.
        processes: how many there were at that moment.
    """

    def __init__(self, interval: float = 0.05) -> None:
        self.total, self.processes = 0, 0
        self._interval, self._stop = interval, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            sizes = list(_tree(os.getpid()))
            if sum(sizes) > self.total:
                self.total, self.processes = sum(sizes), len(sizes)


def _tree(root: int) -> Iterator[int]:
    """Resident bytes of a process and of each of its descendants."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in brackets may hold spaces and brackets itself.
            values = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(values[1])
        resident[int(folder.name)] = int(values[21]) * os.sysconf("SC_PAGE_SIZE")
    members = {root}
    while found := {number for number, parent in parents.items() if parent in members} - members:
        members |= found
    return (resident[number] for number in members if number in resident)


def pin_to_one_core() -> None:
    """Keep this process, and every thread a library starts in it, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def machine_facts() -> str:
    """What the numbers depend on beside the code."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns aligned."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _processor() -> str:
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        lines = dict(line.split(":", 1) for line in flags.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        wide = " with AVX-512" if "avx512f" in fields.get("flags", "") else ""
        return fields.get("model name", platform.machine()) + wide
    return platform.processor() or platform.machine()
