"""Q7. What brings masked tokens back."""

from __future__ import annotations

import torch

from analysis.claims.engines import PAPER, gradient
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q7",
        source=PAPER,
        statement="prime-rl's default loss: mask and squared log-ratio together keep the mismatch of masked tokens "
        "from growing; without the penalty masked tokens never return.",
        status="exact",
        reason="Whether their mismatch grows in training depends on what else moves them, and is not judged.",
    )
)


def _without_a_pull_back(penalty: float) -> float:
    """Share of masked tokens whose gradient does not point back to the old policy."""
    old = torch.linspace(-3.0, -0.1, 50, dtype=torch.float64).view(1, -1)
    wrong = masked = 0
    for sign in (1.0, -1.0):
        # A probability that moved by 0.3 in the direction of its advantage, where there is room for that.
        new = old.exp() + sign * 0.3
        possible = (new > 0) & (new < 1)
        ratios = torch.where(possible, new / old.exp(), 1.0)
        found = gradient(f"prime(penalty={penalty})", ratios, torch.full_like(old, sign), old)
        wrong += int((possible & ~(found * sign > 0)).sum())
        masked += int(possible.sum())
    return wrong / masked


register(
    ExactClaim(
        id="engines/prime-penalty-pulls-back",
        paper=PAPER,
        judges=("Q7",),
        title="The squared log-ratio is what pulls masked tokens back",
        source="prime-rl's default loss (August 2026), read in its source",
        statement="Every masked token has a gradient that points back to the old policy.",
        scope="Exact, in float64: tokens whose probability moved by 0.3 along their advantage, at the published "
        "penalty of 0.001. The pull is 2κz, five hundred times weaker than a token of |A| = 1 at ratio 1.",
        unit="share of masked tokens",
        measure=lambda: _without_a_pull_back(1e-3),
        tolerance=0.0,
        falsifier=Falsifier("The penalty is switched off.", measure=lambda: _without_a_pull_back(0.0)),
        recorded="reproduced",
    )
)
