"""D3. The averages over four benchmarks and four model sizes."""

from __future__ import annotations

from analysis.claims.dcpo import FINETUNE, MECHANISM, PAPER, SMALLEST
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="D3",
        source=PAPER,
        statement="Averages over four benchmarks at 1.5B to 14B: DCPO best at every size in Avg@1, and in "
        "Avg@32 except against DAPO at 3B (22.7 to 23.1).",
        status="llm",
        configuration=f"{FINETUNE} {SMALLEST}",
        reason=MECHANISM,
    )
)
