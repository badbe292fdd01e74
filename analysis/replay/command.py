"""`testbed replay`: a record's table on the terminal, and everything it rests on in a folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.replay.page import write_page
from analysis.replay.verdicts import judge_record
from analysis.replay.walk import Replay, replay
from analysis.report.formatting import number
from testbed.output import fresh_folder

__all__ = ["run"]

_SHOWN = {
    "stopped": "stopped",
    "stopped/positive_above": "A>0, r>1",
    "stopped/negative_below": "A<0, r<1",
    "mass": "mass kept",
    "mass/positive_low": "A>0, p<p*",
    "mass/positive_high": "A>0, p>p*",
    "mass/negative_low": "A<0, p<p*",
    "mass/negative_high": "A<0, p>p*",
    "entropy/predicted": "dH/step",
    "weight/largest": "largest",
}


def run(
    record: str,
    objectives: Sequence[str],
    *,
    advantage: str | None,
    as_json: bool,
    out: Path | None,
    say: Callable[[str], None],
) -> None:
    """Replay a record and say what came of it.

    Args:
        record: the record's folder.
        objectives: what to evaluate; none: everything the record allows.
        advantage: estimator to compute the advantages with again.
        as_json: print the summary as JSON instead of as a table.
        out: folder for `updates.parquet`, `largest.csv`, `rollouts.csv`, `prediction.csv`, `lengths.csv`,
            `mismatch.csv`, `summary.json` and the page, `report.html`.
        say: prints a line.
    """
    with contextlib.nullcontext() if out is None else fresh_folder(out) as folder:
        done = replay(record, objectives or None, advantage=advantage)
        summary = _summary(done)
        if folder is not None:
            done.table.to_parquet(folder / "updates.parquet", index=False)
            done.largest.to_csv(folder / "largest.csv", index=False)
            done.rollouts.to_csv(folder / "rollouts.csv", index=False)
            done.prediction().to_csv(folder / "prediction.csv", index=False)
            done.lengths.to_csv(folder / "lengths.csv", index=False)
            done.mismatch.to_csv(folder / "mismatch.csv", index=False)
            write_page(done, judge_record(record), folder / "report.html")
            (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if as_json:
        say(json.dumps(summary, indent=1))
        return
    for line in _lines(done):
        say(line)
    if out is not None:
        say(f"tables and page: {out}")


def _summary(done: Replay) -> dict[str, Any]:
    means, correlations = done.summary(), done.correlations()
    return {
        "record": str(done.record.path),
        "trained": done.record.objective or None,
        "tokens": done.tokens,
        "rollouts": int(done.table["step"].nunique()),
        "objectives": {
            str(name): {
                **{key: _plain(value) for key, value in row.items() if key != "tokens"},
                "entropy/correlation": _plain(correlations[str(name)]),
            }
            for name, row in means.iterrows()
        },
        "skipped": done.skipped,
    }


def _plain(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _lines(done: Replay) -> list[str]:
    means = done.summary()
    rows = [["objective", *_SHOWN.values()]]
    rows += [[str(name), *(number(row[key]) for key in _SHOWN)] for name, row in means.iterrows()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{done.tokens:,} token-updates of "
        f"{done.table['step'].nunique()} rollouts"
        + (f", trained with {done.record.objective}" if done.record.objective else "")
    ]
    for row in rows:
        cells = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    lines += [
        "stopped: share of tokens with an advantage and no gradient, first updates left out; mass: gradient left, in",
        "units of |rA|, and on which tokens; dH/step: predicted change of entropy per unit of step size; largest: the",
        "heaviest token's weight over the mean",
    ]
    trained = done.record.objective
    correlation = done.correlations().get(trained) if trained else None
    if correlation is not None and not pd.isna(correlation):
        lines.append(
            f"predicted with measured change of entropy over rollouts, {trained}: correlation {number(correlation)}"
        )
    if done.skipped:
        lines.append("not evaluated: " + "; ".join(f"{name} ({reason})" for name, reason in done.skipped.items()))
    return lines
