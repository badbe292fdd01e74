"""`run_sweep` and `merge`: a sweep in one process, in many, on a cluster, and across interruptions.

A sweep's folder holds `sweep.json` (the configuration), `parts/` (one sealed Parquet file per finished block, named
with its checksum and carrying the sweep's fingerprint) and, once all blocks are there, the run itself: `table.parquet`
and `run.json`. Blocks are computed anywhere and written by the process that asked for them, each in one atomic step.
"""

from __future__ import annotations

import io
import json
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from testbed.errors import ConfigError, RunExistsError, StorageError, TestbedError, TestbedWarning
from testbed.progress import LateProgress
from testbed.simulation.axes import shortened
from testbed.simulation.parts import Part, compute
from testbed.simulation.run import Run
from testbed.simulation.storage import guard, hold, is_intact, write_atomically, write_sealed
from testbed.simulation.sweep import Sweep

__all__ = ["Shard", "StorageWarning", "WorkerError", "merge", "parse_shard", "run_sweep"]

BACKENDS = ("loky", "ray")
_CONFIGURATION, _PARTS, _LOCKS = "sweep.json", "parts", ".locks"
_FINGERPRINT, _NUMBER = b"testbed.sweep", b"testbed.part"


class WorkerError(TestbedError, RuntimeError):
    """A worker process ended before its work did."""


class StorageWarning(TestbedWarning):
    """Something on the disk was damaged and has been dealt with."""


@dataclass(frozen=True)
class Shard:
    """Every `of`-th block of a sweep, beginning with the `number`-th; numbers start at 1."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"shard is {self.number}/{self.of}; expected i/n with i from 1 to n, such as 1/4 … 4/4")

    def takes(self, part: int) -> bool:
        """Whether the block of this number is in the shard."""
        return part % self.of == self.number - 1


def parse_shard(text: str) -> Shard:
    """Read `i/n`.

    Raises:
        ConfigError: it is not of that form, or i is not in 1..n.

    Example:
        >>> parse_shard("2/4")
        Shard(number=2, of=4)
    """
    number, slash, of = text.partition("/")
    if not slash or not number.strip().isdigit() or not of.strip().isdigit():
        raise ConfigError(f"shard is {text!r}; expected i/n with i from 1 to n, such as 1/4 … 4/4")
    return Shard(int(number), int(of))


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
        tables = dict(_computed(list(sweep.parts()), workers, backend))
        return _assemble([tables[number] for number in sorted(tables)], sweep.configuration, sweep.fingerprint)

    sweep.check_memory(jobs=workers, limit=memory_limit, table=chosen.of == 1)
    folder = _open_folder(Path(out), sweep, may_continue=resume or chosen.of > 1)
    with hold(folder / _LOCKS, f"shard {chosen.number} of {chosen.of}", group=str(chosen.of)):
        done = _finished(folder, sweep.fingerprint, set_damaged_aside=True)
        mine = [part for part in sweep.parts() if chosen.takes(part.number)]
        if not resume and any(part.number in done for part in mine):
            raise RunExistsError(
                f"{folder} already holds blocks of this sweep's shard {chosen.number}/{chosen.of}; continue with "
                "resume, or choose another out"
            )
        for number, table in _computed([part for part in mine if part.number not in done], workers, backend):
            _write_part(folder, sweep.fingerprint, number, table)
    if len(_finished(folder, sweep.fingerprint)) < sweep.part_count:
        return None
    return merge([folder])


def merge(folders: Sequence[str | Path], out: str | Path | None = None) -> Run:
    """Put the finished blocks of one sweep together, from one folder or from one per machine.

    Args:
        folders: what `run_sweep` wrote.
        out: where `table.parquet` and `run.json` go; `None`: the first folder.

    Raises:
        ConfigError: no folder, or one that holds no sweep.
        StorageError: a block is missing, damaged, or of another sweep; the message names it.
    """
    if not folders:
        raise ConfigError("merge got no folder; name those that run_sweep wrote")
    described = [(Path(folder), _read_configuration(Path(folder))) for folder in folders]
    first, (fingerprint, configuration, count) = described[0]
    found: dict[int, Path] = {}
    for folder, (other, _, _) in described:
        if other != fingerprint:
            raise StorageError(
                f"{folder} holds another sweep than {first} (fingerprints {other[:8]} and {fingerprint[:8]}); merge "
                "only shards of one sweep"
            )
        for number, path in _finished(folder, fingerprint).items():
            if number in found and found[number].name != path.name:
                raise StorageError(
                    f"{found[number]} and {path} are the same block with different content; delete the wrong one and "
                    "resume its shard"
                )
            found.setdefault(number, path)
    missing = sorted(set(range(count)) - set(found))
    if missing:
        raise StorageError(
            f"{len(missing)} of {count} blocks are missing, the first is number {missing[0]}; finish every shard, with "
            "resume where it was interrupted, and merge again"
        )
    run = _assemble([_read_part(found[number], fingerprint)[1] for number in range(count)], configuration, fingerprint)
    target = first if out is None else Path(out)
    target.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    run.table.to_parquet(buffer, index=False)
    write_atomically(target / "table.parquet", buffer.getvalue())
    write_atomically(target / "run.json", (json.dumps(run.facts, indent=1) + "\n").encode())
    return run


# -- computing ---------------------------------------------------------------------------------------------------------


def _computed(parts: Sequence[Part], jobs: int, backend: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Blocks as they get ready, in any order."""
    with LateProgress("sweeping", len(parts)) as progress:
        for number, table in _scheduled(parts, jobs, backend):
            yield number, table
            progress.advance()


def _scheduled(parts: Sequence[Part], jobs: int, backend: str) -> Iterator[tuple[int, pd.DataFrame]]:
    if jobs == 1 and backend == "loky":
        for part in parts:
            yield part.number, compute(part)
        return
    import joblib

    if backend == "ray":
        _register_ray()
    task: Callable[..., Any] = joblib.delayed(_numbered)
    options = {"inner_max_num_threads": 1} if backend == "loky" else {}
    with joblib.parallel_config(backend=backend, n_jobs=jobs, **options):
        pool = joblib.Parallel(return_as="generator_unordered" if backend == "loky" else "list")
        try:
            yield from pool(task(part) for part in parts)
        except BrokenExecutor as error:
            raise WorkerError(
                "a worker process was killed, most often because the memory ran out. What was finished before is safe "
                "if there is a folder: continue with resume, with fewer jobs or a smaller chunk"
            ) from error


def _numbered(part: Part) -> tuple[int, pd.DataFrame]:
    return part.number, compute(part)


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ConfigError(
            "backend is 'ray', but Ray is not installed; install the extra 'ray', or use backend 'loky'"
        ) from error
    register_ray()


def _assemble(tables: Sequence[pd.DataFrame], configuration: dict[str, Any], fingerprint: str) -> Run:
    # Sorted, so that the table does not show how the replicas were cut.
    table = pd.concat(tables, ignore_index=True).sort_values(["cell", "seed", "step"], ignore_index=True)
    return Run(table, {"sweep": configuration, "fingerprint": fingerprint})


# -- the folder --------------------------------------------------------------------------------------------------------


def _open_folder(folder: Path, sweep: Sweep, *, may_continue: bool) -> Path:
    """Create the folder, or check that it holds this sweep."""
    kept = folder / _CONFIGURATION
    try:
        (folder / _PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {folder}: {error.strerror}; choose another out") from error
    with guard(folder / _LOCKS):
        strangers = sorted({path.name for path in folder.iterdir()} - {_PARTS, _LOCKS})
        if not kept.is_file():
            if strangers:
                raise RunExistsError(f"{folder} already holds {strangers[0]}; nothing was written. Choose another out")
            content = {"fingerprint": sweep.fingerprint, "parts": sweep.part_count, "sweep": sweep.configuration}
            write_atomically(kept, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
            return folder
    fingerprint, configuration, _ = _read_configuration(folder)
    if fingerprint != sweep.fingerprint:
        changed = "; ".join(_differences(configuration, sweep.configuration))
        raise ConfigError(
            f"{folder} holds a sweep with another configuration: {changed}. Choose another out, or restore it"
        )
    if not may_continue:
        raise RunExistsError(f"{folder} already holds this sweep; continue with resume, or choose another out")
    return folder


def _read_configuration(folder: Path) -> tuple[str, dict[str, Any], int]:
    """Fingerprint, configuration and number of blocks."""
    path = folder / _CONFIGURATION
    if not path.is_file():
        raise ConfigError(f"{folder} holds no sweep; expected {_CONFIGURATION}, as run_sweep writes it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["fingerprint"]), dict(content["sweep"]), int(content["parts"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({error}); restore it, or begin in another folder") from error


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    fields = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    changed = [
        f"{name} was {reprlib.repr(before.get(name))} and is {reprlib.repr(now.get(name))}"
        for name in fields
        if name != "vary"
    ]
    return changed + (_changed_axes(before.get("vary", []), now["vary"]) if "vary" in fields else [])


def _changed_axes(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between the axes of two configurations; of long lists their number and the first difference."""
    was, is_now = ({axis["name"]: axis for axis in axes} for axes in (before, now))
    changed = []
    for name in dict.fromkeys([*was, *is_now]):
        if was.get(name) == is_now.get(name):
            continue
        first, second = (_axis(axes.get(name)) for axes in (was, is_now))
        values = zip(*(axes.get(name, {}).get("values", []) for axes in (was, is_now)), strict=False)
        place = next((number for number, (old, new) in enumerate(values) if old != new), None)
        if first == second and place is not None:
            first, second = (repr(axes[name]["values"][place]) for axes in (was, is_now))
            changed.append(f"value {place + 1} of {name} was {first} and is {second}")
        else:
            changed.append(f"{name} was {first} and is {second}")
    return changed or [f"vary was {', '.join(was)} and is {', '.join(is_now)}"]


def _axis(axis: Mapping[str, Any] | None) -> str:
    if axis is None:
        return "not varied"
    if "values" not in axis:
        return f"varied from {axis['low']} to {axis['high']}{' on a logarithmic scale' * axis['logarithmic']}"
    return f"varied over {shortened(axis['values'])}"


def _write_part(folder: Path, fingerprint: str, number: int, table: pd.DataFrame) -> None:
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    marks = {_FINGERPRINT: fingerprint.encode(), _NUMBER: str(number).encode()}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **marks}), buffer)
    write_sealed(folder / _PARTS, f"part-{number:06d}", ".parquet", buffer.getvalue())


def _finished(folder: Path, fingerprint: str, *, set_damaged_aside: bool = False) -> dict[int, Path]:
    """The folder's whole blocks by number; a damaged one is an error, or is renamed so that it is computed again."""
    found: dict[int, Path] = {}
    for path in sorted((folder / _PARTS).glob("part-*.parquet")):
        try:
            number, _ = _read_part(path, fingerprint)
        except _DamagedError as error:
            if not set_damaged_aside:
                raise StorageError(
                    f"{error}. Run its shard again with resume, which computes this block anew, and merge again"
                ) from error
            aside = path.with_suffix(".damaged")
            path.rename(aside)
            warnings.warn(f"{error}. It was renamed {aside.name} and is computed again", StorageWarning, stacklevel=3)
            continue
        found[number] = path
    return found


def _read_part(path: Path, fingerprint: str) -> tuple[int, pd.DataFrame]:
    content = path.read_bytes()
    if not is_intact(path, content):
        raise _DamagedError(f"{path} is damaged: its {len(content)} bytes do not have the checksum in its name")
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    marks = table.schema.metadata
    origin = marks.get(_FINGERPRINT, b"unknown").decode()
    if origin != fingerprint:
        raise StorageError(
            f"{path} is a block of another sweep (fingerprint {origin[:8]}, expected {fingerprint[:8]}); remove it"
        )
    return int(marks[_NUMBER]), table.to_pandas()


class _DamagedError(StorageError):
    """A block whose bytes are not those that were written."""
