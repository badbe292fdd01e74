"""What a run will take, before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Estimate", "available_memory", "memory_text"]

# Columns a table has beside its labels: the exact metrics with the bookkeeping, and the sampled ones on top.
_EXACT_COLUMNS, _SAMPLED_COLUMNS = 14, 34
# The table is held while it is put together, sorted and encoded.
_TABLE_COPIES = 3
# Bytes per entry of a replica's tables: parameters, softmax, distribution function, the environment's tables and the
# temporaries of the exact metrics, most of them float64.
_BYTES_PER_ELEMENT = 160


@dataclass(frozen=True)
class Estimate:
    """Size and memory of a run."""

    replicas: int
    """Cells or objectives, times seeds."""
    records: int
    """Rows per replica."""
    labels: int
    """Columns beside the metrics and their bookkeeping."""
    sampled_metrics: bool
    """Whether the sampled batches are measured."""
    chunk: int
    """Replicas trained at once by a process, at most."""
    elements: int
    """Entries of the largest tensor of a replica."""

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.replicas * self.records

    @property
    def columns(self) -> int:
        """Columns of the table, about."""
        return self.labels + _EXACT_COLUMNS + (_SAMPLED_COLUMNS if self.sampled_metrics else 0)

    @property
    def table_bytes(self) -> int:
        """Memory for the table while it is put together."""
        return _TABLE_COPIES * 8 * self.rows * self.columns

    @property
    def replica_bytes(self) -> int:
        """Memory of a replica while it is trained."""
        return self.elements * _BYTES_PER_ELEMENT

    @property
    def training_bytes(self) -> int:
        """Memory of a process' replicas."""
        return self.chunk * self.replica_bytes


def available_memory() -> int:
    """Bytes this process may still take: the machine's free memory, or what its control group leaves."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def memory_text(count: float) -> str:
    """A number of bytes as somebody would say it.

    >>> memory_text(3 << 20), memory_text(5 << 29)
    ('3 MiB', '2.5 GiB')
    """
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
