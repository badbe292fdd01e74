"""What a row of the ledger is, and the page made of all of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from analysis.claims import claim_names, get_claim
from testbed.errors import ConfigError
from testbed.registry import Registry

__all__ = ["STATUSES", "Entry", "entries", "file_entry", "ledger_page"]

STATUSES = {
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
    status: str
    """A key of `STATUSES`."""
    claims: tuple[str, ...] = ()
    """Ids of the executable claims that judge it, or that judge the mechanism behind a benchmark score."""
    configuration: str = ""
    """For `llm`: the `testbed finetune` configuration, and the smallest version that would be honest."""
    reason: str = ""
    """For `out of reach` why; for others what the claims leave open."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]\d+", self.number):
            raise ConfigError(f"ledger row {self.number!r}: expected a letter and a number, such as D5")
        if self.status not in STATUSES:
            raise ConfigError(f"ledger row {self.number}: status is {self.status!r}; expected one of {list(STATUSES)}")
        if self.status in ("exact", "toy", "small") and not self.claims:
            raise ConfigError(f"ledger row {self.number}: status {self.status} without a claim that judges it")
        if self.status == "llm" and not self.configuration:
            raise ConfigError(f"ledger row {self.number}: status llm without the configuration that would test it")
        if self.status == "out of reach" and not self.reason:
            raise ConfigError(f"ledger row {self.number}: out of reach without a reason")
        for claim in self.claims:
            get_claim(claim)

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict on record of each of its claims."""
        return {claim: get_claim(claim).recorded for claim in self.claims}


registry: Registry[Entry] = Registry("ledger row", package="analysis.ledger")


def file_entry(entry: Entry) -> Entry:
    """File a row under its number."""
    return registry.register(entry.number)(entry)


def entries() -> list[Entry]:
    """Every row, by letter and number."""
    rows = [registry[number] for number in registry.names()]
    return sorted(rows, key=lambda entry: (entry.number[0], int(entry.number[1:])))


def ledger_page() -> str:
    """The ledger as Markdown: counts, then a table per source."""
    rows = entries()
    judged = {claim for entry in rows for claim in entry.claims}
    verdicts = Counter(get_claim(claim).recorded for claim in claim_names())
    lines = [
        "# Ledger of claims",
        "",
        "Every numbered statement, where it can be judged, and what came out. Verdicts are those on record; each",
        "claim's scope and falsifier are in the report that `testbed verify` writes.",
        "",
        "| status | rows | meaning |",
        "|---|---|---|",
    ]
    by_status = Counter(entry.status for entry in rows)
    lines += [f"| {status} | {by_status[status]} | {meaning} |" for status, meaning in STATUSES.items()]
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    lines += ["", f"{len(claim_names())} executable claims, {len(judged)} of them cited below: {counted}."]
    for source in dict.fromkeys(entry.source for entry in rows):
        lines += [
            "",
            f"## {source}",
            "",
            "| | statement | status | judged by | what is left open |",
            "|---|---|---|---|---|",
        ]
        for entry in rows:
            if entry.source != source:
                continue
            judges = "<br>".join(f"`{claim}` **{verdict}**" for claim, verdict in entry.verdicts.items())
            rest = " ".join(part for part in (entry.configuration, entry.reason) if part)
            lines.append(f"| {entry.number} | {entry.statement} | {entry.status} | {judges} | {rest} |")
    return "\n".join(lines)
