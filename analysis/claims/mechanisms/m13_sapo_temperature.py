"""M13. SAPO's gate around and far from its published temperatures."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M13",
        source=PAPER,
        statement="SAPO's τ_neg around and far from 1, and the gradient that clean tokens keep beside an outlier.",
        status="toy",
    )
)
