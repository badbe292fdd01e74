"""verl's console: `step:12 - actor/pg_loss:0.01 - …`, with Ray's prefixes, colours and numpy's scalars."""

from __future__ import annotations

import re
from collections.abc import Iterator

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source, lines

__all__ = ["VERL_CONSOLE", "plain"]

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ROW = re.compile(r"(?:^|\s)step:(\d+) - (\S.*)$")
_LONGEST = 8 << 20


def plain(line: bytes) -> str:
    """A line without colours."""
    return _COLOUR.sub("", line.decode("utf-8", errors="replace")).rstrip("\r")


def _row(text: str) -> dict[str, object] | None:
    found = _ROW.search(text)
    if found is None:
        return None
    row: dict[str, object] = {"step": int(found[1])}
    for part in found[2].split(" - "):
        key, colon, value = part.rpartition(":")
        if colon and key:
            row[key.strip()] = value.strip()
    return row


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    for batch in lines(source, _LONGEST):
        rows = [row for line in batch if b"step:" in line and (row := _row(plain(line))) is not None]
        if rows:
            yield block_of_rows(rows, found.unknown)


VERL_CONSOLE = reader(
    Reader(
        name="verl-console",
        title="the console of verl",
        recognises=lambda source: any(
            _ROW.search(_COLOUR.sub("", line)) for line in source.first_lines(10_000) if "step:" in line
        ),
        blocks=_blocks,
        order=40,
        engine="verl",
    )
)
