"""Two runs side by side: which verdicts moved, and what else differs between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report.results import load_results

__all__ = ["Comparison", "VerdictChange", "compare_runs"]


@dataclass(frozen=True)
class VerdictChange:
    """A claim whose verdict is not the same in two runs."""

    id: str
    """The claim, such as "dcpo/token-clip-ratio"."""
    title: str
    """Its title in the later run."""
    paper: str
    """The paper it belongs to."""
    before: str | None
    """Verdict in the first run; None where it was missing."""
    after: str | None
    """Verdict in the second run; None where it is missing."""
    protocol_changed: bool
    """Whether setting, estimand, threshold or seeds were changed too: then the two are not one experiment."""


@dataclass(frozen=True)
class Comparison:
    """What moved from one run to another."""

    before: str
    """Name of the first run's folder."""
    after: str
    """Name of the second run's folder."""
    moved: tuple[VerdictChange, ...]
    """Claims of both runs with different verdicts, in the order of the second run."""
    added: tuple[str, ...]
    """Ids only in the second run."""
    removed: tuple[str, ...]
    """Ids only in the first run."""
    unchanged: int
    """Number of claims with the same verdict in both."""
    differences: tuple[tuple[str, str, str], ...]
    """What else differs (commit, seed, tier, versions): name, first value, second value."""


def compare_runs(before: str | Path, after: str | Path) -> Comparison:
    """Which verdicts moved from the run in folder `before` to the run in folder `after`.

    Raises:
        ConfigError: one of the folders holds no results.
    """
    first, second = load_results(before), load_results(after)
    old = {claim["id"]: claim for claim in first["claims"]}
    new = {claim["id"]: claim for claim in second["claims"]}
    shared = [name for name in new if name in old]
    moved = tuple(
        VerdictChange(
            id=name,
            title=str(new[name].get("title") or name),
            paper=str(new[name].get("paper") or ""),
            before=old[name].get("verdict"),
            after=new[name].get("verdict"),
            protocol_changed=old[name].get("protocol_hash") != new[name].get("protocol_hash"),
        )
        for name in shared
        if old[name].get("verdict") != new[name].get("verdict")
    )
    return Comparison(
        before=_name(before),
        after=_name(after),
        moved=moved,
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        unchanged=len(shared) - len(moved),
        differences=_differences(first["run"], second["run"]),
    )


def _name(folder: str | Path) -> str:
    return Path(folder).resolve().name


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    ignored = {"command", "date", "seconds"}
    one, other = _flat(first), _flat(second)
    names = [name for name in {**one, **other} if name not in ignored]
    return tuple(
        (name, one.get(name, "missing"), other.get(name, "missing"))
        for name in names
        if one.get(name) != other.get(name)
    )


def _flat(run: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in run.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key} "))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
