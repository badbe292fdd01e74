"""B1. The scores at 7B and 32B."""

from __future__ import annotations

from analysis.claims.bapo import FINETUNE, PAPER, SMALLEST
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="B1",
        source=PAPER,
        statement="BAPO reaches 70.8/62.5 on AIME24/25 at 7B (GRPO 69.2/59.2) and 87.1/80.0 at 32B (GRPO 84.6/78.8).",
        status="llm",
        configuration=f"{FINETUNE} {SMALLEST}",
        reason="The claim judges the mechanism: reward on stale rollouts, each objective at its own learning rate.",
    )
)
