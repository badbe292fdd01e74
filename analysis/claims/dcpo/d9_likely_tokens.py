"""D9. Likely tokens cannot be clipped."""

from __future__ import annotations

import numpy as np

from analysis.claims.dcpo import CITATION, DCPO, GRPO, PAPER
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import Tokens, autograd_update

file_entry(
    Entry(
        number="D9",
        source=PAPER,
        statement="After about 60 steps 95 % of the sampled tokens have old probability above 0.9, 97 % after 100; "
        "these can never be clipped from above under any of the rules.",
        status="exact",
        reason="The share of such tokens is a property of the language model and its prompts.",
    )
)


def _share_of_likely_tokens_clipped(least: float) -> float:
    """Share of (q, p) pairs with q above `least` and A > 0 whose gradient is zero, the worst of the three rules."""
    grid = np.meshgrid(np.linspace(least, 1.0, 202)[1:-1], np.linspace(1e-3, 1 - 1e-9, 200))
    old, new = (values.reshape(-1, 1) for values in grid)
    ones = np.ones_like(old)
    tokens = Tokens(np.log(new), np.log(old), ones, ones.astype(bool), ones, ones)
    return max(float((autograd_update(name, tokens) == 0).mean()) for name in (GRPO, "dapo", DCPO))


register(
    ExactClaim(
        id="dcpo/likely-tokens-are-never-clipped",
        paper=PAPER,
        judges=("D9", "M7", "T8"),
        title="Likely tokens are out of the upper bound's reach",
        source=f"{CITATION}, statement D9",
        statement="A token with old probability above 1/1.2 and a positive advantage keeps its gradient at every new "
        "probability under GRPO's, DAPO's and DCPO's upper bounds.",
        scope="Exact, in float64, at the published offsets. How many sampled tokens are that likely is a property of a "
        "language model, 95 % after sixty steps in the paper, and not judged here.",
        unit="share of pairs of probabilities",
        measure=lambda: _share_of_likely_tokens_clipped(1 / 1.2),
        tolerance=0.0,
        falsifier=Falsifier(
            "Old probabilities from 0.75 on are let in.", measure=lambda: _share_of_likely_tokens_clipped(0.75)
        ),
        recorded="reproduced",
    )
)
