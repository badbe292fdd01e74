"""`run_sweep` and `merge`: a sweep in one process, in many, on a cluster, and across interruptions.

Blocks are computed anywhere and written by the process that asked for them, each in one atomic step; see
`testbed.simulation.folder`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from testbed.errors import ConfigError, RunExistsError, StorageError, TestbedError, shown
from testbed.output import free_folder
from testbed.progress import LateProgress
from testbed.reading import parse_whole
from testbed.simulation.blocks import Block, compute
from testbed.simulation.folder import LOCKS, Plan, every_block, finished_blocks, open_folder, read_block, write_block
from testbed.simulation.run import Run
from testbed.simulation.storage import digest_of, hold, write_atomically
from testbed.simulation.sweep import Sweep

__all__ = ["Shard", "WorkerError", "merge", "parse_shard", "run_sweep"]

BACKENDS = ("loky", "ray")


class WorkerError(TestbedError, RuntimeError):
    """A worker process ended before its work did."""


@dataclass(frozen=True)
class Shard:
    """Every `of`-th block of a sweep, beginning with the `number`-th; numbers start at 1."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"shard is {self.number}/{self.of}; expected i/n with i from 1 to n, such as 1/4 … 4/4")

    def takes(self, block: int) -> bool:
        """Whether the block of this number is in the shard."""
        return block % self.of == self.number - 1


def parse_shard(text: str) -> Shard:
    """Read `i/n`.

    Raises:
        ConfigError: it is not of that form, or i is not in 1..n.

    Example:
        >>> parse_shard("2/4")
        Shard(number=2, of=4)
    """
    written, _, whole = text.partition("/")
    number, of = parse_whole(written), parse_whole(whole)
    if number is None or of is None:
        raise ConfigError(f"shard is {shown(text)}; expected i/n with i from 1 to n, such as 1/4 … 4/4")
    return Shard(number, of)


def run_sweep(
    sweep: Sweep,
    out: str | Path | None = None,
    *,
    jobs: int = 1,
    backend: str = "loky",
    shard: Shard | str | None = None,
    resume: bool = False,
    memory_limit: int | None = None,
) -> Run | None:
    """Run a sweep, or one shard of it. The numbers depend on none of the arguments below `sweep`.

    Args:
        sweep: what is run.
        out: folder of the results; `None` keeps them in memory.
        jobs: worker processes, each with one thread; -1: one per core.
        backend: `loky` (processes on this machine) or `ray` (a Ray cluster; the extra `ray`).
        shard: which part of the blocks, as `i/n`, for a machine of its own; needs `out`.
        resume: whether to continue what an earlier call began in `out`.
        memory_limit: bytes that may be used; `None`: four fifths of what is free.

    Returns:
        The run, with one row per cell, seed and recorded step in that order; `None` while blocks of other shards are
        missing.

    Raises:
        ConfigError: the memory does not suffice, the folder belongs to another configuration, or an argument is out of
            range.
        RunExistsError: the folder holds something and `resume` was not asked for.
        StorageError: a block cannot be written, or another process works on the same shard.
        WorkerError: a worker process was killed.
    """
    import joblib

    if backend not in BACKENDS:
        raise ConfigError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs == 0 or jobs < -1:
        raise ConfigError(f"jobs is {jobs!r}; expected a number of processes, or -1 for one per core")
    workers = joblib.cpu_count() if jobs == -1 else jobs
    chosen = parse_shard(shard) if isinstance(shard, str) else shard or Shard()
    if out is None:
        if chosen.of > 1 or resume:
            raise ConfigError("shard and resume need a folder for the finished blocks; pass out")
        sweep.check_memory(jobs=workers, limit=memory_limit)
        tables = dict(_computed(list(sweep.blocks()), workers, backend))
        return _assemble([tables[number] for number in sorted(tables)], sweep.configuration)

    sweep.check_memory(jobs=workers, limit=memory_limit, table=chosen.of == 1)
    plan = Plan(sweep.configuration, sweep.block_count)
    folder = open_folder(Path(out), plan, may_continue=resume or chosen.of > 1)
    with hold(folder / LOCKS, f"shard {chosen.number} of {chosen.of}", group=str(chosen.of)):
        done = finished_blocks(folder, plan, set_damaged_aside=True)
        mine = [block for block in sweep.blocks() if chosen.takes(block.number)]
        if not resume and any(block.number in done for block in mine):
            raise RunExistsError(
                f"{folder} already holds blocks of this sweep's shard {chosen.number}/{chosen.of}; continue with "
                "resume, or choose another out"
            )
        for number, table in _computed([block for block in mine if block.number not in done], workers, backend):
            write_block(folder, plan, number, table)
    if len(finished_blocks(folder, plan)) < plan.blocks:
        return None
    return merge([folder])


def merge(folders: Sequence[str | Path], out: str | Path | None = None) -> Run:
    """Put the finished blocks of one sweep together, from one folder or from one per machine.

    Args:
        folders: what `run_sweep` wrote.
        out: where `table.parquet` and `run.json` go, a new folder or one of those; `None`: the first of them.

    Raises:
        ConfigError: no folder, or one that holds no sweep.
        RunExistsError: `out` holds something else.
        StorageError: a block is missing, damaged, superfluous, or of another sweep; the message names it.
    """
    if not folders:
        raise ConfigError("merge got no folder; name those that run_sweep wrote")
    places = [Path(folder) for folder in folders]
    target = places[0] if out is None else Path(out)
    if target.resolve() not in [place.resolve() for place in places]:
        free_folder(target)
    plan = Plan.read(places[0])
    for place in places[1:]:
        other = Plan.read(place)
        if other != plan:
            raise StorageError(
                f"{place} holds another sweep than {places[0]} (plans {other.checksum[:8]} and {plan.checksum[:8]}); "
                "merge only shards of one sweep"
            )
    run = _assemble([read_block(path, plan)[1] for path in every_block(places, plan)], plan.configuration)
    target.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    run.table.to_parquet(buffer, index=False)
    write_atomically(target / "table.parquet", buffer.getvalue())
    write_atomically(target / "run.json", (json.dumps(run.facts, indent=1) + "\n").encode())
    return run


# -- computing ---------------------------------------------------------------------------------------------------------


def _computed(blocks: Sequence[Block], jobs: int, backend: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Blocks as they get ready, in any order."""
    rollouts = {block.number: block.rollouts for block in blocks}
    with LateProgress("sweeping", sum(rollouts.values())) as progress:
        if jobs == 1 and backend == "loky":
            for block in blocks:
                yield _on_one_thread(block, progress.advance)
            return
        for number, table in _spread(blocks, jobs, backend):
            progress.advance(rollouts[number])
            yield number, table


def _spread(blocks: Sequence[Block], jobs: int, backend: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Blocks by processes of their own."""
    import joblib

    if backend == "ray":
        _register_ray()
    task: Callable[..., Any] = joblib.delayed(_on_one_thread)
    options = {"inner_max_num_threads": 1} if backend == "loky" else {}
    with joblib.parallel_config(backend=backend, n_jobs=jobs, **options):
        pool = joblib.Parallel(return_as="generator_unordered" if backend == "loky" else "list")
        try:
            yield from pool(task(block) for block in blocks)
        except BrokenExecutor as error:
            raise WorkerError(
                "a worker process was killed, most often because the memory ran out. What was finished before is safe "
                "if there is a folder: continue with resume, with fewer jobs or a smaller chunk"
            ) from error


def _on_one_thread(block: Block, advance: Callable[[], object] = lambda: None) -> tuple[int, pd.DataFrame]:
    """A block's number and table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return block.number, compute(block, advance)
    finally:
        torch.set_num_threads(threads)


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ConfigError(
            "backend is 'ray', but Ray is not installed; install the extra 'ray', or use backend 'loky'"
        ) from error
    register_ray()


def _assemble(tables: Sequence[pd.DataFrame], configuration: Mapping[str, Any]) -> Run:
    # Sorted, so that the table does not show how the replicas were cut.
    table = pd.concat(tables, ignore_index=True).sort_values(["cell", "seed", "step"], ignore_index=True)
    return Run(table, {"sweep": configuration, "fingerprint": digest_of(configuration)})
