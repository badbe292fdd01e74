"""prime-rl's console: `Step 7 | Time: 3.2s | Loss: 0.01 | Entropy: 0.4 | …`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.readers.verl_console import plain
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import Found, Source, lines

__all__ = ["PRIME_RL_CONSOLE"]

_ROW = re.compile(r"\bStep (\d+)\s*\|\s*(.+)$")
_PART = re.compile(
    r"([A-Za-z][A-Za-z. ]*?)\s*[:=]?\s*(-?(?:\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?|nan|inf))\s*([a-zA-Z%/]*)\s*$"
)
_KEYS = {
    "loss": "loss/mean",
    "entropy": "entropy/all/mean",
    "mismatch kl": "mismatch_kl/all/mean",
    "grad. norm": "optim/grad_norm",
    "grad norm": "optim/grad_norm",
    "lr": "optim/lr",
    "reward": "reward/mean",
    "time": "time/step",
    "step time": "time/step",
    "seq. length": "train/all/all/num_output_tokens/mean",
    "max. off-policy level": "off_policy/max",
}


def _row(text: str) -> dict[str, object] | None:
    found = _ROW.search(text)
    if found is None:
        return None
    row: dict[str, object] = {"step": int(found[1])}
    for part in found[2].split("|"):
        named = _PART.match(part.strip())
        if named:
            scale = 0.01 if named[3] == "%" else 1.0
            key = _KEYS.get(named[1].strip().lower())
            if key is not None:
                row[key] = float(named[2].replace(",", "")) * scale
    return row if len(row) > 1 else None


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    for batch in lines(source, 8 << 20):
        rows = [row for line in batch if b"Step " in line and (row := _row(plain(line))) is not None]
        if rows:
            yield block_of_rows(rows, found.unknown)


PRIME_RL_CONSOLE = reader(
    Reader(
        name="prime-rl-console",
        title="the console of prime-rl",
        recognises=lambda source: any(
            _row(plain(line.encode())) for line in source.first_lines(2000) if "Step " in line
        ),
        blocks=_blocks,
        order=41,
        engine="prime-rl",
    )
)
