"""M14. Smooth standardisation and dynamic sampling."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M14",
        source=PAPER,
        statement="Smooth standardisation and dynamic sampling: share of responses used, samples to a target reward.",
        status="toy",
    )
)
