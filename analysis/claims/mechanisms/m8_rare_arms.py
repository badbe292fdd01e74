"""M8. Discovery of rare arms."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M8",
        source=PAPER,
        statement="Discovery of rare arms: DCPO against GRPO, DAPO and no clip.",
        status="toy",
    )
)
