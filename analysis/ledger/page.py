"""The ledger as a page."""

from __future__ import annotations

from collections import Counter

from analysis.judging.claim import claim_names, get_claim
from analysis.ledger.entry import STATUSES, entries

__all__ = ["ledger_page"]


def ledger_page() -> str:
    """The ledger as Markdown: counts, then a table per source."""
    rows = entries()
    judged = {claim for entry in rows for claim in entry.claims}
    verdicts = Counter(get_claim(claim).recorded for claim in claim_names())
    lines = [
        "# Ledger of claims",
        "",
        "Every numbered statement, where it can be judged, and what came out. Verdicts are those on record; each",
        "claim's scope and falsifier are in the report that `testbed verify` writes. A claim marked ◉ can be judged on",
        "the tokens of a recorded run as well: `testbed verify CLAIM --on RECORD`.",
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
            judges = "<br>".join(
                f"`{claim}` **{verdict}**{' ◉' if claim in entry.on_record else ''}"
                for claim, verdict in entry.verdicts.items()
            )
            rest = " ".join(part for part in (entry.configuration, entry.reason) if part)
            lines.append(f"| {entry.number} | {entry.statement} | {entry.status} | {judges} | {rest} |")
    return "\n".join(lines)
