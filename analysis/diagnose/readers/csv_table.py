"""CSV with a header: exports of W&B (of a run, or of a chart), trackio, TensorBoard, and frames written by pandas."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

import numpy as np

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source, lines

__all__ = ["CSV_TABLE"]

_EXTREME = re.compile(r"__(?:MIN|MAX)$")
_SEPARATORS = (",", "\t", ";")


def _header(line: str) -> tuple[list[str], str] | None:
    for separator in _SEPARATORS:
        names = next(csv.reader([line], delimiter=separator), [])
        if len(names) >= 2 and all(not _is_number(name) for name in names if name):
            return names, separator
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _recognises(source: Source) -> bool:
    found = source.first_lines(4)
    if len(found) < 2 or b"\0" in source.head or "{" in found[0][:1]:
        return False
    try:
        header = _header(found[0])
        if header is None:
            return False
        cells = next(csv.reader([found[1]], delimiter=header[1]), [])
    except csv.Error:
        return False
    cut = len(found[0].encode()) >= len(source.head) - 4096
    return cut or (abs(len(cells) - len(header[0])) <= 1 and any(_is_number(cell) for cell in cells))


def _name(column: str) -> str:
    """A column's key: charts of W&B put `name of the run - ` in front."""
    return column.rpartition(" - ")[2].strip() if " - " in column else column.strip()


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    names: list[str] | None = None
    separator = ","
    for batch in lines(source):
        texts = [line.decode("utf-8", errors="replace").rstrip("\r") for line in batch]
        texts = [text for text in texts if text.strip()]
        if names is None:
            if not texts:
                continue
            header = _header(texts.pop(0))
            if header is None:
                return
            names, separator = header
        try:
            rows = [row for row in csv.reader(texts, delimiter=separator)]
        except csv.Error:
            found.skipped += len(texts)
            continue
        kept = [row for row in rows if len(row) == len(names)]
        found.skipped += len(rows) - len(kept)
        if kept:
            yield _block(names, kept)


def _block(names: list[str], rows: list[list[str]]) -> Block:
    columns: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    slow: dict[str, list[str]] = {}
    for column, cells in zip(names, zip(*rows, strict=True), strict=True):
        name = _name(column)
        if not name or _EXTREME.search(column) or name in columns:
            continue
        filled = np.array([cell != "" for cell in cells])
        at = np.flatnonzero(filled)
        if not len(at):
            continue
        try:
            columns[name] = (at, np.array([cell for cell in cells if cell != ""], dtype=float))
        except ValueError:
            slow[name] = list(cells)
    if not slow:
        return Block(len(rows), columns)
    mixed = block_of_rows(
        [{name: cells[i] for name, cells in slow.items() if cells[i] != ""} for i in range(len(rows))]
    )
    return Block(len(rows), columns | dict(mixed.columns), mixed.texts)


CSV_TABLE = reader(Reader(name="csv", title="CSV with a header", recognises=_recognises, blocks=_blocks, order=60))
