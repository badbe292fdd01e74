"""What a comparison found: the results of both sides, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis.judging.result import ClaimResult
from testbed.diagnostics import GLOSSARY

__all__ = ["PAGE_FILE", "RESULT_FILE", "Agreement", "Outcome", "Transfer", "means"]

RESULT_FILE, PAGE_FILE = "transfer.json", "transfer.md"
Agreement = Literal["agree", "disagree", "undecided"]


@dataclass(frozen=True)
class Outcome:
    """A claim on both sides."""

    name: str
    title: str
    difference: str
    toy: ClaimResult
    language_model: ClaimResult
    """Nothing is on record for another device than the record's."""

    @property
    def agreement(self) -> Agreement:
        """Whether both sides reach the same conclusion; undecided where one of them reaches none."""
        verdicts = {self.toy.verdict, self.language_model.verdict}
        if not verdicts <= {"reproduced", "refuted"}:
            return "undecided"
        return "agree" if len(verdicts) == 1 else "disagree"

    def to_json(self) -> dict[str, Any]:
        """The row of `transfer.json`; a missing number is null."""
        return {
            "name": self.name,
            "title": self.title,
            "difference": self.difference,
            "toy": _side(self.toy),
            "language_model": _side(self.language_model),
            "agreement": self.agreement,
        }


@dataclass(frozen=True)
class Transfer:
    """A finished comparison."""

    folder: Path
    """Where transfer.json, transfer.md and the runs lie."""
    outcomes: tuple[Outcome, ...]
    facts: Mapping[str, Any]
    """Date, device, versions, models, seeds and times."""

    @property
    def page(self) -> Path:
        """The table and every claim in words."""
        return self.folder / PAGE_FILE

    @property
    def changed(self) -> list[ClaimResult]:
        """The sides whose verdict is another word than the one on record.

        Stricter than `ClaimResult.as_recorded`: these runs have no other seeds that could disagree.
        """
        sides = [side for outcome in self.outcomes for side in (outcome.toy, outcome.language_model)]
        return [side for side in sides if side.claim.recorded not in (None, side.verdict)]


def means(result: ClaimResult) -> dict[str, dict[str, float]]:
    """What the arms did: metric, arm, mean over rollouts and seeds, of every curve that is a metric."""
    return {
        drawn["title"]: {series["label"]: sum(series["mean"]) / len(series["mean"]) for series in drawn["series"]}
        for drawn in result.curves
        if drawn["title"] in GLOSSARY
    }


_SIDE = (
    "id",
    "verdict",
    "reason",
    "recorded",
    "statement",
    "estimand",
    "estimate",
    "interval",
    "level",
    "threshold",
    "direction",
    "unit",
    "seeds",
    "seeds_needed",
    "scope",
    "falsifier",
    "per_seed",
)


def _side(result: ClaimResult) -> dict[str, Any]:
    row = result.to_json()
    return {**{name: row[name] for name in _SIDE}, "means": means(result)}
