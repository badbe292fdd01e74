"""Lines with a Python dictionary: slime's `step 12: {'train/loss': …}`, what transformers and ROLL print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.readers.verl_console import plain
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source, lines

__all__ = ["DICT_LINES"]

_ROW = re.compile(r"(?:\b(step|rollout|eval|perf)\s+(\d+)\s*:?\s*)?(\{\s*['\"][^{}]*\})")
_SCALAR = re.compile(r"\b(?:np|numpy|torch)\.[a-z]+\d*\(([^()]*)\)|\btensor\(([^(),]*)[^()]*\)")
_BARE = re.compile(r"(?<=[:\s])(-?)(nan|inf|NaN|Infinity)(?=\s*[,}])")
_LONGEST = 8 << 20


def _row(text: str) -> dict[str, object] | None:
    text = _SCALAR.sub(lambda match: match[1] or match[2] or "None", text)
    found = _ROW.search(text)
    if found is None:
        return None
    body = _BARE.sub(lambda match: f"'{match[1]}{match[2]}'", found[3])
    body = re.sub(r"\bnull\b", "None", body)
    try:
        values = ast.literal_eval(body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(values, dict) or not any(_numeric(value) for value in values.values()):
        return None
    row: dict[str, object] = {str(key): value for key, value in values.items()}
    if found[2] is not None and "step" not in row and f"{_AXIS[found[1]]}/step" not in row:
        row[f"{_AXIS[found[1]]}/step"] = int(found[2])
    return row


_AXIS = {"step": "train", "rollout": "rollout", "eval": "eval", "perf": "rollout"}


def _numeric(value: object) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float)


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    for batch in lines(source, _LONGEST):
        rows = [row for line in batch if b"{" in line and (row := _row(plain(line))) is not None]
        if rows:
            yield block_of_rows(rows, found.unknown)


DICT_LINES = reader(
    Reader(
        name="dict-lines",
        title="lines with a Python dictionary (slime, the console of transformers, ROLL)",
        recognises=lambda source: any(_row(line) for line in source.first_lines(2000) if "{" in line),
        blocks=_blocks,
        order=45,
    )
)
