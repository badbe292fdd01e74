"""D2. The scores of the 14B model on AIME25."""

from __future__ import annotations

from analysis.claims.dcpo import FINETUNE, MECHANISM, PAPER, SMALLEST
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="D2",
        source=PAPER,
        statement="Qwen2.5-14B, AIME25, Avg@1/Avg@32: DCPO 23.3/19.0 against GRPO 13.3/10.5, DAPO 20.0/15.3 and "
        "GSPO 16.7/9.9.",
        status="llm",
        configuration=f"{FINETUNE} {SMALLEST}",
        reason=MECHANISM,
    )
)
