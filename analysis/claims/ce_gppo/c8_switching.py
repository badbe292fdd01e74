"""C8. Switching the coefficients during training."""

from __future__ import annotations

from analysis.claims.ce_gppo import PAPER, SMALLEST
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="C8",
        source=PAPER,
        statement="Switching from (0, 1) to (½, 1) at step 585 lowers the entropy and raises the accuracy.",
        status="llm",
        configuration="Two runs of `testbed finetune` with `qwen2.5-1.5b-math.yaml`, the first with "
        "`objective: ce_gppo(beta1=0.0)`, the second starting from the first one's `model/` with "
        f"`objective: ce_gppo(beta1=0.5)`, against one that goes on unchanged. {SMALLEST}",
        reason="Out of the simulator's scope, which keeps hyper-parameters for a whole run; the claims judge what the "
        "two settings do when each is used throughout.",
    )
)
