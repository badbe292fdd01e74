"""M5. CE-GPPO's coefficients and the entropy."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M5",
        source=PAPER,
        statement="CE-GPPO's β₁ and β₂ steer the entropy monotonically, in opposite directions.",
        status="toy",
    )
)
