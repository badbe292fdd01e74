"""Q16. The optimal token baseline."""

from __future__ import annotations

from analysis.claims.engines import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q16",
        source=PAPER,
        statement="Optimal token baseline: groups of 4 match groups of 32, more than 65 % fewer tokens, and gradient "
        "norms do not explode.",
        status="out of reach",
        reason="It needs Σ q² of every position and an advantage per token, which `testbed.advantages.token_baseline` "
        "computes and no training loop here carries.",
    )
)
