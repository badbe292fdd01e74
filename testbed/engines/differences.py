"""The differences between engines and published objectives as a page, and what changed from one version to another.

What is compared in one environment is kept as JSON; tables of environments that cannot be one are put together here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from testbed.engines.conformance import conformance_table, engine_names, engines
from testbed.errors import ConfigError

__all__ = ["changes", "compare_all", "differences_page", "read_table"]

_COLUMNS = ("id", "engine", "version", "objective", "setting", "loss", "gradient", "differs", "reproduced_by")


def compare_all(seed: int = 0) -> tuple[pd.DataFrame, dict[str, str]]:
    """The tables of every engine that runs in this environment, one after the other.

    Args:
        seed: of the random batches.

    Returns:
        The rows, and of every engine that does not run the sentence why.

    Raises:
        ConfigError: none runs.
    """
    tables, absent = [], {}
    for name in engine_names():
        if not engines[name].installed:
            absent[name] = "not installed here"
            continue
        try:
            tables.append(conformance_table(name, seed=seed))
        except ConfigError as error:
            absent[name] = str(error)
    if not tables:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise ConfigError(f"no engine runs in this environment: {reasons}")
    return pd.concat(tables, ignore_index=True), absent


def read_table(path: Path) -> pd.DataFrame:
    """A table that `testbed conformance --out` wrote.

    Raises:
        ConfigError: there is no such file, or it is another one.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a table of conformance: {error}") from error
    known = isinstance(rows, list) and rows and all(isinstance(row, dict) and set(_COLUMNS) <= set(row) for row in rows)
    if not known:
        raise ConfigError(f"{path} is no table of conformance; expected what `testbed conformance --out` writes")
    return pd.DataFrame(rows)


def differences_page(table: pd.DataFrame, absent: dict[str, str] | None = None) -> str:
    """Every difference as Markdown: an id, both settings, why, the smallest input that shows it, what reproduces it.

    Args:
        table: rows of one or more engines.
        absent: engines that are not among them, and why.
    """
    present = table[table["setting"] != "absent"]
    lines = [
        "# What engines compute under a published name",
        "",
        "Written by `testbed conformance --engine all`. A row is a difference in loss or gradient, on random batches "
        "in",
        "float64, between an engine's own function and the objective of that name; the input is the smallest of a "
        "fixed",
        "list that shows it, q the old probability. An id stays the same while the two settings do.",
        "",
        "| engine | version | losses compared | the same | differ | of these reproduced |",
        "|---|---|---|---|---|---|",
    ]
    for (engine, version), rows in present.groupby(["engine", "version"], sort=True):
        differ = rows["differs"] != ""
        reproduced = differ & (rows["reproduced_by"] != "")
        lines.append(
            f"| {engine} | {version} | {len(rows)} | {int((~differ).sum())} | {int(differ.sum())} "
            f"| {int(reproduced.sum())} |"
        )
    lines += [f"| {engine} | | | | | {reason} |" for engine, reason in sorted((absent or {}).items())]
    for (engine, version), rows in present.groupby(["engine", "version"], sort=True):
        found = rows[rows["differs"] != ""]
        if not len(found):
            continue
        lines += ["", f"## {engine} {version}", ""]
        for row in found.to_dict("records"):
            why, _, smallest = str(row["differs"]).partition("; ")
            lines += [f"**{row['id']}**: `{row['objective']}` and the engine's {row['setting']}. {_sentence(why)}", ""]
            if smallest:
                lines += [f"* {_sentence(smallest)}"]
            reproduced = row["reproduced_by"]
            lines += [f"* Reproduced by `{reproduced}`." if reproduced else "* Nothing here reproduces it.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def changes(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """What differs between two tables, a sentence each: losses that came, went, began or ceased to differ, or moved.

    Args:
        before: rows of an earlier version.
        after: rows of a later one.

    Raises:
        ConfigError: they have no engine in common.
    """
    common = set(before["engine"]) & set(after["engine"])
    if not common:
        names = [", ".join(sorted(set(table["engine"]))) for table in (before, after)]
        raise ConfigError(f"the tables are of {names[0]} and of {names[1]}; expected two of one engine")
    old, new = (_by_id(table, common) for table in (before, after))
    found = []
    for name in sorted({*old, *new}):
        if name not in old:
            found.append(f"{_title(new[name])}: compared for the first time, {_outcome(new[name])}")
        elif name not in new:
            found.append(f"{_title(old[name])}: no longer compared, it was {_outcome(old[name])}")
        elif _outcome(old[name]) != _outcome(new[name]):
            found.append(f"{_title(new[name])}: {_outcome(old[name])} before, now {_outcome(new[name])}")
    return found


def _by_id(table: pd.DataFrame, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    rows = table[table["engine"].isin(list(names)) & (table["setting"] != "absent")]
    return {str(row["id"]): {str(key): value for key, value in row.items()} for row in rows.to_dict("records")}


def _title(row: dict[str, Any]) -> str:
    return f"{row['id']}, {row['objective']} and {row['engine']}'s {row['setting']}"


def _outcome(row: dict[str, Any]) -> str:
    if not row["differs"]:
        return "the same"
    return f"different because {row['differs']}"


def versions(table: pd.DataFrame) -> Sequence[str]:
    """Engines and versions of a table, "trl 1.16.0" each."""
    pairs = table.loc[table["setting"] != "absent", ["engine", "version"]].drop_duplicates()
    return [f"{engine} {version}" for engine, version in pairs.itertuples(index=False)]
