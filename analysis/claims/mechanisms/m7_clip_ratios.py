"""M7. Token clip ratios of three objectives."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M7",
        source=PAPER,
        statement="DCPO's token clip ratio against that of GRPO and DAPO, and the updates for which an order of "
        "magnitude holds.",
        status="toy",
    )
)
