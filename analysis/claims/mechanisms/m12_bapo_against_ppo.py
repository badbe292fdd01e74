"""M12. BAPO against PPO and its own fixed intervals."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M12",
        source=PAPER,
        statement="BAPO against PPO and its own fixed intervals, under staleness and with longer wrong responses.",
        status="toy",
    )
)
