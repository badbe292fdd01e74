"""Reading a record: update by update, in order, in memory that does not grow with its length."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import BatchError, StorageError
from testbed.records.schema import LONGEST_RESPONSE, MANIFEST, OPTIONAL, REQUIRED, SCHEMA_VERSION, shard_schema

__all__ = ["Record", "RecordedUpdate", "read_record", "stacked"]

Array = np.ndarray[Any, Any]
Key = tuple[int, int]
Rows = dict[str, Any]

_ROWS_TOGETHER = 512
_PLAIN = ("step", "update", "replica", "response", "prompt", "reward", "token_count", "sequence_count")
_PER_ROW = (*_PLAIN, "advantage", "lengths")
_SILENT = {
    "entropies": "the current policy's entropy",
    "old_entropies": "the entropy at sampling time",
    "kappas": "κ of the current policy",
    "old_kappas": "κ at sampling time",
    "sampler_log_probs": "what the sampler reported",
    "ref_log_probs": "the reference policy's log-probability",
}


@dataclass(frozen=True, eq=False)
class RecordedUpdate:
    """One update of one run: the responses of its batch that were recorded.

    Attributes:
        step: the rollout.
        update: the optimiser step on it.
        replica: the run, 0 for a language model.
        responses: number of each response in its rollout or in the update, as the writer was told, `(B,)`.
        prompts: name of each response's prompt, `(B,)`.
        rewards: `(B,)`, NaN where there was none.
        lengths: tokens of each response, `(B,)`.
        numbers: what was recorded per token, by column, each of all responses one behind the other.
        advantages: one per response, or one per token like `numbers`.
        token_count: response tokens of the whole optimiser step.
        sequence_count: responses of the whole optimiser step.
    """

    step: int
    update: int
    replica: int
    responses: Array
    prompts: Array
    rewards: Array
    lengths: Array
    numbers: dict[str, Array]
    advantages: Array
    token_count: float
    sequence_count: float

    @property
    def tokens(self) -> int:
        """Recorded response tokens."""
        return int(self.lengths.sum())

    def batch(self) -> TokenBatch:
        """The batch `(B, T)` that the objective was given, as far as it was recorded.

        Raises:
            StorageError: a number is NaN or infinite.
        """
        whole = stacked([self])
        return _of_one(whole)

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        return f"step {self.step}, update {self.update}"


class Record:
    """A record on disk.

    Attributes:
        path: its folder.
        manifest: what the writer said about the run.
        columns: the numbers per token that it holds.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.columns: tuple[str, ...] = tuple(manifest["columns"])
        self._shards = sorted(path.glob("shard-*-*.parquet"))

    @property
    def objective(self) -> str:
        """The label of the objective that trained, or an empty string."""
        return str(self.manifest.get("objective") or "")

    def require(self, *names: str, reason: str) -> None:
        """Raise a `StorageError` unless these columns were recorded."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            described = " and ".join(f"{name} ({_SILENT.get(name, 'a number per token')})" for name in missing)
            raise StorageError(
                f"{self.path} has no {described}; {reason}. Record a run whose batches carry "
                f"{' and '.join(missing)}: a trainer passes them to TokenBatch where its objective needs them"
            )

    def rollouts(self) -> list[int]:
        """Every rollout's number, in order.

        Raises:
            StorageError: a shard is damaged.
        """
        found: set[int] = set()
        for shard in self._shards:
            try:
                steps = pq.read_table(shard, columns=["step"]).column("step").unique().to_pylist()
            except (pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise _unreadable(shard, error) from error
            # What is no number is refused, with its place, by whoever reads the rows.
            found.update(step for step in steps if isinstance(step, int))
        return sorted(found)

    def updates(self) -> Iterator[RecordedUpdate]:
        """Every update, in order of step, update and replica, those of all ranks together.

        Raises:
            StorageError: a shard is damaged, out of order, of another schema, or holds a response that is too long.
        """
        by_rank: dict[str, list[Path]] = {}
        for shard in self._shards:
            by_rank.setdefault(shard.name.split("-")[1], []).append(shard)
        streams = [self._of_rank(shards) for shards in by_rank.values()]
        merged = heapq.merge(*streams, key=lambda item: item[0])
        found = False
        for (step, update), parts in itertools.groupby(merged, key=lambda item: item[0]):
            found = True
            rows = _concatenated([rows for _, rows in parts])
            for replica in np.unique(rows["replica"]):
                yield self._update(step, update, int(replica), _selected(rows, rows["replica"] == replica))
        if not found:
            raise StorageError(f"{self.path} holds no rollout; the run ended before its first one was recorded")

    def _of_rank(self, shards: Sequence[Path]) -> Iterator[tuple[Key, Rows]]:
        """The rows of one rank, all of an update together."""
        last: Key | None = None
        waiting: list[Rows] = []
        for shard in shards:
            for rows in self._batches(shard):
                keys = np.stack([rows["step"], rows["update"]], 1)
                cuts = np.flatnonzero((keys[1:] != keys[:-1]).any(1)) + 1
                for start, end in itertools.pairwise([0, *cuts.tolist(), len(keys)]):
                    key = (int(keys[start, 0]), int(keys[start, 1]))
                    if last is not None and key < last:
                        raise StorageError(
                            f"{shard} is out of order: step {key[0]}, update {key[1]} comes after step {last[0]}, "
                            f"update {last[1]}; expected rows in the order in which they were trained on"
                        )
                    if last is not None and key != last:
                        yield last, _concatenated(waiting)
                        waiting = []
                    last = key
                    waiting.append(_between(rows, start, end))
        if last is not None:
            yield last, _concatenated(waiting)

    def _update(self, step: int, update: int, replica: int, rows: Rows) -> RecordedUpdate:
        if len(np.unique(rows["response"])) < len(rows["response"]):
            raise StorageError(
                f"{self.path} holds step {step}, update {update} twice; expected every response once. Was one record "
                "copied into another?"
            )
        return RecordedUpdate(
            step,
            update,
            replica,
            responses=rows["response"],
            prompts=rows["prompt"],
            rewards=rows["reward"],
            lengths=rows["lengths"],
            numbers={name: rows[name] for name in (*REQUIRED, *OPTIONAL) if name in rows},
            advantages=rows["advantage"] if "advantage" in rows else rows["advantages"],
            token_count=float(rows["token_count"].max()),
            sequence_count=float(rows["sequence_count"].max()),
        )

    def _batches(self, shard: Path) -> Iterator[Rows]:
        try:
            with pq.ParquetFile(shard) as file:
                names = file.schema_arrow.names
                advantage = "advantage" if "advantage" in names else "advantages"
                wanted = [*_PLAIN, advantage, *self.columns]
                missing = [name for name in wanted if name not in names]
                if missing:
                    raise StorageError(
                        f"{shard} has no column {' and '.join(missing)}; its record's manifest says it does. "
                        "Keep shards of different records apart"
                    )
                _check_types(file.schema_arrow, self.columns, shard)
                for rows in file.iter_batches(batch_size=_ROWS_TOGETHER, columns=wanted):
                    yield _unpacked(rows, shard, self.columns, advantage)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, StorageError):
                raise
            raise _unreadable(shard, error) from error


def read_record(path: str | Path) -> Record:
    """Open a record.

    Raises:
        StorageError: the folder is no record, or one of another schema.
    """
    folder = Path(path)
    manifest = folder / MANIFEST
    try:
        described = json.loads(manifest.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(
            f"{folder} is no record: it has no readable {MANIFEST}; expected a folder that RecordWriter, "
            "`record: true` in a training configuration, or simulate(record=…) wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{manifest} is not JSON: {' '.join(str(error).split())[:200]}") from error
    version = described.get("schema") if isinstance(described, dict) else None
    if version != SCHEMA_VERSION:
        raise StorageError(
            f"{manifest} has schema {version!r}; this version of the package reads schema {SCHEMA_VERSION}. Read it "
            "with the version that wrote it"
        )
    columns = described.get("columns")
    if not isinstance(columns, list) or not set(REQUIRED) <= {*map(str, columns)} <= {*REQUIRED, *OPTIONAL}:
        raise StorageError(
            f"{manifest} has columns {columns!r}; expected {', '.join(REQUIRED)} and any of {', '.join(OPTIONAL)}"
        )
    return Record(folder, described)


def stacked(updates: Sequence[RecordedUpdate]) -> TokenBatch:
    """Several updates as replicas of one batch `(N, B, T)`; what one has fewer of is padding, which changes nothing.

    Raises:
        StorageError: a number is NaN or infinite; the message says in which update.
    """
    count = len(updates)
    most = max(len(update.lengths) for update in updates)
    width = max(1, max(int(update.lengths.max(initial=0)) for update in updates))
    lengths = np.zeros((count, most), np.int64)
    for index, update in enumerate(updates):
        lengths[index, : len(update.lengths)] = update.lengths
    mask = torch.arange(width) < torch.from_numpy(lengths).unsqueeze(-1)

    def tokens(name: str) -> Tensor:
        values = torch.zeros(mask.shape)
        values[mask] = torch.tensor(np.concatenate([update.numbers[name] for update in updates]))
        return values

    def responses(values: Sequence[Array]) -> Tensor:
        together = torch.zeros(count, most)
        for index, row in enumerate(values):
            together[index, : len(row)] = torch.tensor(row)
        return together

    per_token = updates[0].advantages.shape != updates[0].lengths.shape
    if per_token:
        advantages = torch.zeros(mask.shape)
        advantages[mask] = torch.tensor(np.concatenate([update.advantages for update in updates]))
    else:
        advantages = responses([update.advantages for update in updates])
    groups = torch.zeros(count, most, dtype=torch.int64)
    for index, update in enumerate(updates):
        _, inverse = np.unique(update.prompts, return_inverse=True)
        groups[index, : len(inverse)] = torch.from_numpy(inverse)
        groups[index, len(inverse) :] = -1
    optional = {name: tokens(name) for name in updates[0].numbers if name not in REQUIRED}
    try:
        return TokenBatch(
            log_probs=tokens("log_probs"),
            old_log_probs=tokens("old_log_probs"),
            advantages=advantages,
            mask=mask,
            groups=groups,
            token_count=torch.tensor([update.token_count for update in updates]),
            sequence_count=torch.tensor([update.sequence_count for update in updates]),
            **optional,
        )
    except BatchError as error:
        if count > 1:
            for update in updates:
                stacked([update])
        raise StorageError(f"the record at {updates[0].place} is not a batch: {error}") from error


def _of_one(batch: TokenBatch) -> TokenBatch:
    fields = {name: getattr(batch, name) for name in (*REQUIRED, "mask", *OPTIONAL)}
    advantages = batch.advantages if batch.response_advantages is None else batch.response_advantages[..., 0]
    return TokenBatch(
        **{name: value[0] for name, value in fields.items() if value is not None},
        advantages=advantages[0],
        groups=None if batch.groups is None else batch.groups[0],
        token_count=batch.total_tokens()[0],
        sequence_count=batch.total_sequences()[0],
    )


def _check_types(schema: pa.Schema, columns: Sequence[str], shard: Path) -> None:
    expected = shard_schema(tuple(columns), per_token_advantages="advantages" in schema.names)
    for field in expected:
        found = schema.field(field.name).type
        alike = found == field.type or (
            pa.types.is_list(found) and pa.types.is_list(field.type) and found.value_type == field.type.value_type
        )
        if not alike:
            raise StorageError(f"{shard}: {field.name} is {found}; expected {field.type}, as RecordWriter writes it")


def _unreadable(shard: Path, error: Exception) -> StorageError:
    reason = " ".join(str(error).split())[:200]
    return StorageError(
        f"{shard} cannot be read: {reason}; it is damaged or no shard of a record. Move it away to read the rest"
    )


# -- rows ------------------------------------------------------------------------------------------------------------


def _unpacked(rows: pa.RecordBatch, shard: Path, columns: Sequence[str], advantage: str) -> Rows:
    lists = [*columns, *(["advantages"] if advantage == "advantages" else [])]
    unpacked: Rows = {}
    lengths = None
    for name in lists:
        column = rows.column(name)
        if column.null_count:
            raise StorageError(f"{shard}: {name} is missing in {column.null_count} rows; expected a list in every row")
        own = column.value_lengths().to_numpy(zero_copy_only=False)
        if lengths is not None and not np.array_equal(own, lengths):
            raise StorageError(f"{shard}: {name} has another number of tokens than {lists[0]} in some rows")
        lengths = own
        unpacked[name] = column.flatten().to_numpy(zero_copy_only=False)
    assert lengths is not None
    if len(lengths) and int(lengths.max()) > LONGEST_RESPONSE:
        raise StorageError(
            f"{shard} holds a response of {int(lengths.max()):,} tokens; expected at most {LONGEST_RESPONSE:,}. "
            "Was a whole file recorded as one response?"
        )
    for name in (*_PLAIN, *(["advantage"] if advantage == "advantage" else [])):
        column = rows.column(name)
        if column.null_count:
            raise StorageError(f"{shard}: {name} is missing in {column.null_count} rows")
        unpacked[name] = column.to_numpy(zero_copy_only=False)
    unpacked["lengths"] = lengths.astype(np.int64)
    unpacked["offsets"] = np.concatenate([[0], np.cumsum(unpacked["lengths"])])
    return unpacked


def _between(rows: Rows, start: int, end: int) -> Rows:
    first, last = rows["offsets"][start], rows["offsets"][end]
    return {
        name: values[start:end] if name in _PER_ROW else values[first:last]
        for name, values in rows.items()
        if name != "offsets"
    }


def _selected(rows: Rows, chosen: Array) -> Rows:
    if chosen.all():
        return rows
    tokens = np.repeat(chosen, rows["lengths"])
    return {name: values[chosen] if name in _PER_ROW else values[tokens] for name, values in rows.items()}


def _concatenated(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
