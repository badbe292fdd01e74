"""Writing a record, from any training loop."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import BatchError, ConfigError, StorageError
from testbed.records.schema import MANIFEST, OPTIONAL, REQUIRED, SCHEMA_VERSION, shard_name, shard_schema

__all__ = ["RecordWriter", "check_thinning"]

_SHARD_TOKENS = 500_000
_SHARD_SECONDS = 20.0
_ROWS_TOGETHER = 1024


def check_thinning(every: int, share: float) -> None:
    """Refuse settings that would record nothing, or more than everything.

    Raises:
        ConfigError: `every` is no positive number, or `share` is not in (0, 1].
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigError(f"every is {every!r}; expected a positive number of rollouts")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f"share is {share!r}; expected a share of the prompts in (0, 1]")


class RecordWriter:
    """Writes each update's batch to a folder; what is there is readable at any moment, and a resumed run continues it.

    A shard is written when its rollouts are complete and large or old enough, and appears as a whole or not at all.
    Updates that an earlier run of the same rank wrote already are passed over, so that a run resumed from an older
    checkpoint leaves no doubles.

    Args:
        path: the folder; it is made, or it holds a record with the same settings.
        every: only rollouts whose step is a multiple of it.
        share: about this share of the prompts of each rollout, in (0, 1]; a group is recorded whole or not at all.
        objective: the label of the objective that trains.
        settings: whatever else should be known about the run, plain data.
        rank: of this process; every process writes shards of its own, and a reader merges them.

    Raises:
        ConfigError: a setting is out of its range.
        StorageError: the folder holds something else, or a record of other settings.

    Example: see `testbed.records`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: int = 1,
        share: float = 1.0,
        objective: str = "",
        settings: Mapping[str, Any] | None = None,
        rank: int = 0,
    ) -> None:
        check_thinning(every, share)
        self.path = Path(path)
        self.every = every
        self.share = float(share)
        self.rank = rank
        self._described = {
            "objective": objective,
            "settings": dict(settings or {}),
            "every": every,
            "share": self.share,
        }
        self._schema: pa.Schema | None = None
        self._tables: list[pa.Table] = []
        self._tokens = 0
        self._step: int | None = None
        self._place: tuple[int, int] | None = None
        self._places = 0
        self._written = self._updates_on_disk()
        self._next = 1 + max((int(item.stem.split("-")[2]) for item in self._own_shards()), default=-1)
        self._last_write = time.monotonic()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the rollout at hand may be half a one.
        self.close(complete=kind is None)

    def add(
        self,
        batch: TokenBatch,
        *,
        step: int,
        update: int,
        prompts: Sequence[object] | Tensor,
        rewards: Sequence[float] | Tensor,
        responses: Sequence[int] | Tensor | None = None,
    ) -> None:
        """Record one update's batch, or one micro-batch of it.

        Args:
            batch: what the objective was given, `(..., B, T)`.
            step: the rollout it is from; never smaller than in the call before.
            update: which optimiser step on that rollout, from 0.
            prompts: one name or number per response, `(B,)`, equal within a group.
            rewards: `(..., B)`; NaN for a response without one.
            responses: number of each response within its rollout, `(B,)`; `None`: its place in the update. Give them
                where an update holds a part of a rollout, so that rewards can be compared within whole groups again.

        Raises:
            BatchError: `prompts`, `rewards` or `responses` have another number of entries than there are responses,
                steps go back, or columns come and go.
            StorageError: a shard cannot be written.
        """
        if self._step is not None and step < self._step:
            raise BatchError(f"step is {step} after {self._step}; expected rollouts in order, each recorded as a whole")
        if self._step is not None and step != self._step:
            self._rollout_complete()
        if (step, update) != self._place:
            self._place, self._places = (step, update), 0
        self._step = step
        if not self.wants(step, update):
            return
        names = [str(name) for name in (prompts.tolist() if isinstance(prompts, Tensor) else prompts)]
        replicas, sequences = math.prod(batch.mask.shape[:-2]), batch.mask.shape[-2]
        earned = torch.as_tensor(rewards, dtype=torch.float32).detach().cpu().expand(*batch.mask.shape[:-1])
        if len(names) != sequences:
            raise BatchError(f"prompts has {len(names)} entries; expected {sequences}, one per response of the batch")
        if responses is None:
            numbers = (self.rank << 32) + self._places + np.arange(sequences)
        else:
            numbers = np.asarray(responses.cpu() if isinstance(responses, Tensor) else responses, np.int64)
        if numbers.shape != (sequences,):
            raise BatchError(
                f"responses has shape {numbers.shape}; expected ({sequences},), one number per response of the batch"
            )
        kept = np.array([self._is_kept(step, name) for name in names])
        if not kept.any():
            return
        table = self._table(batch, step, update, names, earned, numbers, np.tile(kept, replicas))
        self._tables.append(table)
        self._places += sequences
        self._tokens += int(batch.mask.sum())

    @property
    def continues(self) -> bool:
        """Whether an earlier run of this rank wrote updates to the folder."""
        return bool(self._written)

    @property
    def last_step(self) -> int:
        """The last rollout that an earlier run of this rank wrote; 0 where there is none."""
        return max((step for step, _ in self._written), default=0)

    def wants(self, step: int, update: int) -> bool:
        """Whether an update is recorded: its rollout is one of every so many, and it is not on disk yet."""
        return step % self.every == 0 and (step, update) not in self._written

    def flush(self) -> None:
        """Write everything that was added, such as with a checkpoint from which the run will go on.

        Raises:
            StorageError: a shard cannot be written.
        """
        self._write()

    def close(self, *, complete: bool = True) -> None:
        """Write what is left; the writer takes nothing more for that rollout.

        Args:
            complete: whether the last rollout was recorded to its end; otherwise it is left out.
        """
        if not complete and self._step is not None:
            steps = [table.column("step")[0].as_py() for table in self._tables]
            self._tables = [table for table, step in zip(self._tables, steps, strict=True) if step != self._step]
        self._write()

    # -- rows --------------------------------------------------------------------------------------------------

    def _is_kept(self, step: int, prompt: str) -> bool:
        if self.share == 1:
            return True
        drawn = hashlib.blake2b(f"{step}:{prompt}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") < self.share * 2**64

    def _table(
        self,
        batch: TokenBatch,
        step: int,
        update: int,
        prompts: list[str],
        rewards: Tensor,
        responses: np.ndarray[Any, Any],
        kept: np.ndarray[Any, Any],
    ) -> pa.Table:
        numbers: dict[str, Tensor | None] = {name: getattr(batch, name) for name in (*REQUIRED, *OPTIONAL)}
        columns = tuple(name for name in (*REQUIRED, *OPTIONAL) if numbers[name] is not None)
        per_token = batch.response_advantages is None
        schema = shard_schema(columns, per_token)
        if self._schema is None:
            self._schema = schema
            self._write_manifest(columns)
        elif schema != self._schema:
            raise BatchError(
                f"the batch has {', '.join(schema.names)}; expected {', '.join(self._schema.names)} as in the record "
                "so far. Pass the same optional fields in every call"
            )
        mask = batch.mask.detach().cpu().reshape(-1, batch.mask.shape[-1])[torch.from_numpy(kept)]
        lengths = mask.sum(-1).numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        replicas, sequences = len(kept) // len(prompts), len(prompts)
        rows = np.arange(replicas * sequences)[kept]

        def flat(values: Tensor) -> Tensor:
            return values.detach().float().cpu().expand(batch.mask.shape).reshape(-1, mask.shape[-1])[rows]

        def lists(values: Tensor) -> pa.Array:
            return pa.ListArray.from_arrays(offsets, pa.array(flat(values)[mask].numpy()))

        def per_batch(total: Tensor) -> np.ndarray[Any, Any]:
            return np.asarray(np.repeat(total.detach().double().cpu().reshape(-1).numpy(), sequences)[kept])

        response_advantages = batch.response_advantages
        arrays = {
            "step": np.full(len(rows), step, np.int64),
            "update": np.full(len(rows), update, np.int32),
            "replica": (rows // sequences).astype(np.int32),
            "response": responses[rows % sequences],
            "prompt": [prompts[row % sequences] for row in rows],
            "reward": rewards.reshape(-1).numpy()[rows],
            "token_count": per_batch(batch.total_tokens()),
            "sequence_count": per_batch(batch.total_sequences()),
            **{name: lists(values) for name, values in numbers.items() if values is not None},
        }
        if response_advantages is None:
            arrays["advantages"] = lists(batch.advantages)
        else:
            arrays["advantage"] = response_advantages.detach().float().cpu().reshape(-1).numpy()[rows]
        return pa.table([pa.array(arrays[field.name], type=field.type) for field in schema], schema=schema)

    # -- files -------------------------------------------------------------------------------------------------

    def _rollout_complete(self) -> None:
        old = time.monotonic() - self._last_write > _SHARD_SECONDS
        if self._tables and (old or self._tokens >= _SHARD_TOKENS):
            self._write()

    def _write(self) -> None:
        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        content = io.BytesIO()
        # Float columns whose bytes are split by significance compress; text repeats and goes into a dictionary.
        floats = [f"{name}.list.element" for name in (*REQUIRED, *OPTIONAL) if name in table.column_names]
        pq.write_table(
            table,
            content,
            compression="zstd",
            row_group_size=_ROWS_TOGETHER,
            use_dictionary=["prompt"],
            use_byte_stream_split=floats,
        )
        _write_whole(self.path / shard_name(self.rank, self._next), content.getvalue())
        self._next += 1
        self._tables, self._tokens, self._last_write = [], 0, time.monotonic()

    def _write_manifest(self, columns: tuple[str, ...]) -> None:
        described = {
            "schema": SCHEMA_VERSION,
            **self._described,
            "columns": list(columns),
            "versions": {name: metadata.version(name) for name in ("torch", "numpy", "pyarrow")},
        }
        path = self.path / MANIFEST
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key in ("schema", *self._described, "columns") if found.get(key) != described[key]]
            if differing:
                raise StorageError(
                    f"{self.path} holds a record with another {' and '.join(differing)}; choose another folder, or "
                    "record with the settings it was begun with"
                )
            return
        _write_whole(path, (json.dumps(described, indent=1, sort_keys=True) + "\n").encode())

    def _own_shards(self) -> list[Path]:
        return sorted(self.path.glob(f"shard-{self.rank:03d}-*.parquet"))

    def _updates_on_disk(self) -> set[tuple[int, int]]:
        # Another process may be about to write the manifest, under a name that begins with a point.
        holds_something = self.path.exists() and any(not item.name.startswith(".") for item in self.path.iterdir())
        if holds_something and not (self.path / MANIFEST).exists():
            raise StorageError(f"{self.path} holds something that is no record; choose a new folder")
        updates: set[tuple[int, int]] = set()
        for shard in self._own_shards():
            try:
                found = pq.read_table(shard, columns=["step", "update"])
            except (pa.ArrowException, OSError) as error:
                raise StorageError(f"{shard} cannot be read: {error}; move it away to continue the record") from error
            updates.update(zip(*(found.column(name).to_pylist() for name in ("step", "update")), strict=True))
        return updates


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears with all of its content, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what was recorded before is safe"
        ) from error
