"""Parquet: exports of W&B's history and of trackio."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source
from testbed.errors import ConfigError

__all__ = ["PARQUET_TABLE"]


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with source.open() as stream:
            file = pq.ParquetFile(pa.PythonFile(stream, mode="r"))
            for batch in file.iter_batches(batch_size=8192):
                yield _block(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{source.name} is a damaged Parquet file: {first}; export it again") from error


def _block(batch) -> Block:
    import pyarrow as pa

    columns: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    slow: list[str] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            values = column.drop_null()
            columns[name] = (at, values.to_numpy(zero_copy_only=False).astype(float))
        elif pa.types.is_struct(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            slow.append(name)
    if not slow:
        return Block(batch.num_rows, columns)
    rows = []
    for row in batch.select(slow).to_pylist():
        for name, value in row.items():
            if isinstance(value, str) and value.startswith("{"):
                try:
                    row[name] = json.loads(value)
                except (ValueError, RecursionError):
                    continue
        rows.append({name: value for name, value in row.items() if value is not None})
    mixed = block_of_rows(rows)
    return Block(batch.num_rows, columns | dict(mixed.columns), mixed.texts)


PARQUET_TABLE = reader(
    Reader(
        name="parquet",
        title="Parquet",
        recognises=lambda source: source.head.startswith(b"PAR1"),
        blocks=_blocks,
        order=10,
    )
)
