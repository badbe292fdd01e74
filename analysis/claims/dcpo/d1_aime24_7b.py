"""D1. The scores of the 7B model on AIME24."""

from __future__ import annotations

from analysis.claims.dcpo import FINETUNE, MECHANISM, PAPER, SMALLEST
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="D1",
        source=PAPER,
        statement="Qwen2.5-Math-7B, AIME24, Avg@1/Avg@32: DCPO 46.7/38.8 against GRPO 36.7/32.1, DAPO 36.7/31.6 "
        "and GSPO 40.0/34.9.",
        status="llm",
        configuration=f"{FINETUNE} {SMALLEST}",
        reason=MECHANISM,
    )
)
