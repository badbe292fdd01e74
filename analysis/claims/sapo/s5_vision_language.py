"""S5. Gains on vision-language models."""

from __future__ import annotations

from analysis.claims.sapo import PAPER
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="S5",
        source=PAPER,
        statement="Gains on Qwen3-VL over sizes and tasks, as curves; all methods may destabilise in the end.",
        status="out of reach",
        reason="Vision-language models and their data are outside this project, and the curves have no published end "
        "points to compare with; the claim judges the comparison on a small text model.",
    )
)
