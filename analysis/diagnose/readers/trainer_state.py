"""`trainer_state.json` of transformers' trainers: rows stand in `log_history`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source, json_entries

__all__ = ["TRAINER_STATE"]


def _recognises(source: Source) -> bool:
    return source.head.lstrip().startswith(b"{") and b'"log_history"' in source.head


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    entries = json_entries(source, "log_history")
    before = next(entries, "")
    for name in ("logging_steps", "train_batch_size", "max_steps", "num_train_epochs"):
        given = re.search(rf'"{name}"\s*:\s*([0-9.eE+-]+)', str(before))
        if given:
            found.configuration[f"trainer_state.{name}"] = float(given[1])
    while rows := list(islice(entries, 4096)):
        found.skipped += sum(not isinstance(row, dict) for row in rows)
        yield block_of_rows([row for row in rows if isinstance(row, dict)], found.unknown)


TRAINER_STATE = reader(
    Reader(
        name="trainer-state",
        title="trainer_state.json of TRL",
        recognises=_recognises,
        blocks=_blocks,
        order=20,
    )
)
