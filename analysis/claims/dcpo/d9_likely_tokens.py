"""D9. Likely tokens cannot be clipped."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from analysis.claims.dcpo import CITATION, DCPO, GRPO, PAPER
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.judging.estimands import Estimand, average, largest, value_of
from analysis.judging.on_record import OnRecord, TokenMeasure
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import Tokens, autograd_update
from testbed.batch import TokenBatch

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


def _stopped_above(least: float) -> TokenMeasure:
    """Of the tokens with q above `least` and A > 0, the share that has no gradient."""

    def share(_: object, batch: TokenBatch, slopes: Tensor) -> Tensor:
        # A rounding of the ratio must not decide about a token on the edge itself.
        likely = batch.mask & (batch.advantages > 0) & (batch.old_log_probs > math.log(least) + 1e-6)
        return (likely & (slopes == 0)).sum((-2, -1)) / likely.sum((-2, -1))

    return share


def _share_of_likely(_: object, batch: TokenBatch, __: Tensor) -> Tensor:
    return (batch.mask & (batch.old_log_probs > math.log(0.9))).sum((-2, -1)) / batch.mask.sum((-2, -1))


def _worst(metric: str) -> Estimand:
    read = largest(metric)
    return Estimand(
        f"largest {metric} of any update, of the worst of [grpo], [dapo] and [dcpo]",
        lambda runs: np.max([read.read(runs[name]) for name in ("grpo", "dapo", "dcpo")], axis=0),
        frozenset({"grpo", "dapo", "dcpo"}),
    )


ON_RECORD = OnRecord(
    arms={"grpo": GRPO, "dapo": "dapo", "dcpo": DCPO},
    estimand=_worst("share of likely tokens stopped"),
    sabotaged_estimand=_worst("share of any tokens stopped"),
    statement="A sampled token with old probability above 1/1.2 and a positive advantage keeps its gradient under "
    "GRPO's, DAPO's and DCPO's upper bounds.",
    sabotage="Old probabilities of every size are let in.",
    unit="share of such tokens",
    tolerance=0.0,
    measures={
        "share of likely tokens stopped": _stopped_above(1 / 1.2),
        "share of any tokens stopped": _stopped_above(1e-9),
        "share of tokens with q above 0.9": _share_of_likely,
    },
    readings=(value_of(average("share of tokens with q above 0.9"), "grpo"),),
)

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
        on_record=ON_RECORD,
    )
)
