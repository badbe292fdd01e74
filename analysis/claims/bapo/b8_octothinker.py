"""B8. The scores of OctoThinker-Llama-3B."""

from __future__ import annotations

from analysis.claims.bapo import FINETUNE, PAPER, SMALLEST
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="B8",
        source=PAPER,
        statement="On OctoThinker-Llama-3B AIME24 rises from 2.5 to 5.4, AIME25 from 2.9 to 5.8 and MATH from 58.4 to "
        "66.0.",
        status="llm",
        configuration=f"{FINETUNE} With that paper's ranges for it: "
        "`bapo(low_range=(0.8,0.9),high_range=(1.2,2.0),target=0.45)`. " + SMALLEST,
        reason="The mechanism is judged under B6.",
    )
)
