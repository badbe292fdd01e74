"""How many threads of the processor a language model is worth, beside whatever else the machine does.

Threads that compute one product together wait for each other by spinning. Where every thread has a core of its own
that costs little; where it has to share one, small products take ten times as long: the thread that is to finish does
not get to run while the others spin. Threads that sleep instead cost nothing then.
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["Threads", "choose_threads", "idle_cores", "wait_passively"]

SMALL = 10_000_000
"""Parameters below which more than two threads gain nothing: the second saves a fifth for a tenth of a million."""


class Threads(NamedTuple):
    """A number of threads and why."""

    number: int
    """At least 1."""
    reason: str
    """The rest of a sentence that begins with the number."""


def choose_threads(parameters: int, cores: int, idle: float) -> Threads:
    """As many threads as there are idle cores; at most two for a small model.

    Args:
        parameters: of the model.
        cores: that this process may use.
        idle: how many of them do nothing, see `idle_cores`.

    Example:
        >>> choose_threads(25_000_000, 8, 5.7)
        Threads(number=6, reason='5.7 of 8 cores are idle')
        >>> choose_threads(100_000, 8, 5.7)
        Threads(number=2, reason='5.7 of 8 cores are idle and 0.1 million parameters are too few for more')
    """
    free = min(max(round(idle), 1), cores)
    reason = f"{idle:.1f} of {cores} cores are idle"
    if parameters >= SMALL or free <= 2:
        return Threads(free, reason)
    return Threads(2, f"{reason} and {parameters / 1e6:.1f} million parameters are too few for more")


def idle_cores(seconds: float = 0.5) -> tuple[int, float]:
    """The cores this process may use, and how many of them do nothing, watched for a moment in which it waits."""
    # Comes with accelerate.
    import psutil

    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    busy = psutil.cpu_percent(seconds, percpu=True)
    return len(mine), sum(1 - busy[core] / 100 for core in mine if core < len(busy))


def wait_passively() -> None:
    """Let threads without work sleep instead of spin; has an effect only before PyTorch is loaded."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
