"""M9. Ratios that are noisy in long responses."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from analysis.claims import sapo
from analysis.claims.mechanisms import PAPER
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.judging.estimands import average, difference
from analysis.judging.on_record import OnRecord
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import Tokens, autograd_update
from testbed.batch import TokenBatch

file_entry(
    Entry(
        number="M9",
        source=PAPER,
        statement="GSPO, GRPO and SAPO when ratios are noisy in long responses.",
        status="toy",
        reason="Noise enters through stale rollouts, routing and single outliers. Noise added to the ratio "
        "itself, and responses of 32 tokens, are not simulated: the ratio's denominator is always the "
        "trainer's own.",
    )
)


def _clean_token_loss(objective: str) -> float:
    """How much of their gradient clean tokens lose when one token of their response is an outlier, at most 1."""
    clean, outlier = np.log(np.full((1, 4), 1.001)), np.log(np.array([[1.001, 1.001, 1.001, 3.0]]))
    ones = np.ones((1, 4))
    old = np.full((1, 4), -2.0)

    def weights(ratios: np.ndarray) -> np.ndarray:
        tokens = Tokens(old + ratios, old, ones, ones.astype(bool), ones, ones)
        return autograd_update(objective, tokens)[0, :3]

    return float(np.abs(weights(outlier) / weights(clean) - 1).max())


def _kept_beside_outliers(_: object, batch: TokenBatch, slopes: Tensor) -> Tensor:
    """Of the unclipped push of tokens within 20 %, in responses that hold one beyond, the part that is left."""
    far = batch.mask & ((batch.ratio.detach() - 1).abs() > 0.2)
    beside = batch.mask & ~far & far.any(-1, keepdim=True)
    push = (batch.ratio.detach() * batch.advantages).abs().where(beside, 0)
    return slopes.abs().where(beside, 0).sum((-2, -1)) / push.sum((-2, -1))


KEPT = "share of the push kept beside outliers"

ON_RECORD = OnRecord(
    arms={"sapo": "sapo", "gspo": "gspo"},
    sabotaged={"sapo": sapo.CLOSED_SAPO},
    estimand=difference(average(KEPT), of="sapo", minus="gspo"),
    statement="In responses with a token whose ratio is off by more than 20 %, the other tokens keep at least a tenth "
    "more of their push under SAPO than under GSPO with its published range.",
    sabotage=sapo.CLOSED_GATE.description,
    unit="share of Σ|rA|",
    direction="greater",
    threshold=0.1,
    measures={KEPT: _kept_beside_outliers},
)

register(
    ExactClaim(
        id="sapo/outlier-tokens",
        paper=sapo.PAPER,
        judges=("M9", "M13", "T9"),
        title="One outlier does not silence its response",
        source=f"{sapo.CITATION}, comparison with sequence-level clipping",
        statement="Under SAPO an outlier token changes nothing about the gradient of the other tokens of its response.",
        scope="Exact, on one response of four tokens with positive advantage, three at ratio 1.001 and one at 3. Under "
        "GSPO with its published range the same outlier removes the gradient of all four.",
        unit="share of the clean tokens' gradient",
        measure=lambda: _clean_token_loss("sapo"),
        tolerance=1e-12,
        falsifier=Falsifier(
            "GSPO, whose ratio belongs to the whole response, takes SAPO's place.",
            measure=lambda: _clean_token_loss("gspo(clip_low=0.01,clip_high=0.01)"),
        ),
        recorded="reproduced",
        on_record=ON_RECORD,
    )
)
