"""M6. What ERC masks, and what that does."""

from __future__ import annotations

from analysis.claims.mechanisms import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M6",
        source=PAPER,
        statement="ERC masks many times more tokens than PPO clips, mostly at low entropy, and so keeps "
        "divergence and entropy ratios small.",
        status="toy",
    )
)
