"""Q8. FIPO's scores and lengths."""

from __future__ import annotations

from analysis.claims.engines import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q8",
        source=PAPER,
        statement="FIPO: the responses of Qwen2.5-32B grow from about 4,000 to more than 10,000 tokens, and AIME24 "
        "rises from 50.0 to 58.0, where DAPO stays on a plateau.",
        status="out of reach",
        reason="It is about the length of reasoning of a language model of 32B parameters; no environment here rewards "
        "longer reasoning, and its influence on the future of a response is 1 wherever policies agree.",
    )
)
