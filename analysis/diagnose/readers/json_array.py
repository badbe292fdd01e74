"""A JSON array of rows, as some exports have it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source, json_entries

__all__ = ["JSON_ARRAY"]


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    entries = json_entries(source, None)
    next(entries, "")
    while rows := list(islice(entries, 4096)):
        found.skipped += sum(not isinstance(row, dict) for row in rows)
        yield block_of_rows([row for row in rows if isinstance(row, dict)], found.unknown)


JSON_ARRAY = reader(
    Reader(
        name="json-array",
        title="a JSON array of rows",
        recognises=lambda source: source.head.lstrip()[:1] == b"[" and source.head.lstrip()[1:].lstrip()[:1] == b"{",
        blocks=_blocks,
        order=25,
    )
)
