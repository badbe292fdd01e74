"""M16. Routing of a mixture of experts and the ratio."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M16",
        source=PAPER,
        statement="In a mixture of experts changes of routing widen the ratio, replay narrows it, and "
        "objectives differ in what they tolerate.",
        status="small",
    )
)
