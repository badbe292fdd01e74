"""What a row of the ledger is, and all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from analysis.judging.claim import claim_names, get_claim
from testbed.errors import ConfigError
from testbed.registry import Registry

__all__ = ["STATUSES", "Entry", "Status", "entries", "file_entry"]

Status = Literal["exact", "toy", "small", "llm", "out of reach"]
STATUSES: dict[Status, str] = {
    "exact": "an identity or inequality, checked to a tolerance",
    "toy": "statistical, on automaton environments with tabular policies",
    "small": "statistical, with shared parameters: low-rank, transformer or mixture of experts",
    "llm": "needs the training of a language model; names the configuration that would test it",
    "out of reach": "cannot be judged here; says why",
}
"""Where a statement can be judged."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A published statement and what this project can say of it.

    Raises:
        ConfigError: at import, when the row contradicts itself; its number is named.
    """

    number: str
    """A letter for the source and a number: D1, E2, …, M3, T5."""
    source: str
    """The paper's short name."""
    statement: str
    """The statement, in this project's words, figures included."""
    status: Status
    """Where it can be judged."""
    configuration: str = ""
    """For `llm`: the `testbed finetune` configuration, and the smallest version that would be honest."""
    reason: str = ""
    """For `out of reach` why; for others what the claims leave open."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]\d+", self.number):
            raise ConfigError(f"ledger row {self.number!r}: expected a letter and a number, such as D5")
        if self.status not in get_args(Status):
            raise ConfigError(f"ledger row {self.number}: status is {self.status!r}; expected one of {list(STATUSES)}")
        if self.status == "llm" and not self.configuration:
            raise ConfigError(f"ledger row {self.number}: status llm without the configuration that would test it")
        if self.status == "out of reach" and not self.reason:
            raise ConfigError(f"ledger row {self.number}: out of reach without a reason")

    @property
    def claims(self) -> tuple[str, ...]:
        """Ids of the executable claims that judge it, or that judge the mechanism behind a benchmark score."""
        return tuple(name for name in claim_names() if self.number in get_claim(name).judges)

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict on record of each of its claims."""
        return {claim: get_claim(claim).recorded for claim in self.claims}

    @property
    def on_record(self) -> tuple[str, ...]:
        """Ids of its claims that can be judged on a recorded run."""
        return tuple(name for name in self.claims if get_claim(name).on_record is not None)

    def to_json(self) -> dict[str, Any]:
        """The row with its claims and their verdicts."""
        return {
            "number": self.number,
            "source": self.source,
            "statement": self.statement,
            "status": self.status,
            "verdicts": self.verdicts,
            "on_record": list(self.on_record),
            "configuration": self.configuration,
            "reason": self.reason,
        }


registry: Registry[Entry] = Registry("ledger row", package="analysis.claims")


def file_entry(entry: Entry) -> Entry:
    """File a row under its number."""
    return registry.register(entry.number)(entry)


def entries() -> list[Entry]:
    """Every row, by letter and number.

    Raises:
        ConfigError: a claim judges a statement that is none of the rows, or a row that says claims judge it has none.
    """
    rows = [registry[number] for number in registry.names()]
    numbers = {row.number for row in rows}
    judged: set[str] = set()
    for name in claim_names():
        unknown = [number for number in get_claim(name).judges if number not in numbers]
        if unknown:
            raise ConfigError(f"claim {name}: judges {unknown[0]}, which is no row of the ledger; file that row")
        judged.update(get_claim(name).judges)
    for row in rows:
        if row.status in ("exact", "toy", "small") and row.number not in judged:
            raise ConfigError(f"ledger row {row.number}: status {row.status} without a claim that judges it")
    return sorted(rows, key=lambda entry: (entry.number[0], int(entry.number[1:])))
