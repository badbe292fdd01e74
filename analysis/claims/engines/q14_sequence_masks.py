"""Q14. A drift that is small everywhere."""

from __future__ import annotations

import torch

from analysis.claims.engines import PAPER
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from testbed.batch import TokenBatch
from testbed.objectives import make_objective

file_entry(
    Entry(
        number="Q14",
        source=PAPER,
        statement="Token masks miss a drift that is small everywhere; a geometric mean outside 0.999 to 1.002 catches "
        "it whatever the length of the response, a product does not.",
        status="exact",
    )
)


def _kept(objective: str, drift: float, length: int) -> bool:
    """Whether a response is kept whose tokens the trainer finds e^drift times as likely as the sampler did."""
    old = torch.full((1, length), -1.0, dtype=torch.float64)
    batch = TokenBatch(
        log_probs=old,
        old_log_probs=old,
        advantages=torch.ones_like(old),
        mask=old < 0,
        sampler_log_probs=old - drift,
    )
    return bool((make_objective(objective).weights(batch) > 0).all())  # type: ignore[attr-defined]


def _depends_on_length(objective: str) -> float:
    """Share of lengths at which the decision about a drift is another than for one token."""
    lengths, drifts = (1, 4, 16, 64, 256, 1024, 4096), (5e-4, 3e-3)
    return sum(
        _kept(objective, drift, length) != _kept(objective, drift, 1) for drift in drifts for length in lengths
    ) / (len(lengths) * len(drifts))


register(
    ExactClaim(
        id="engines/geometric-mask-ignores-length",
        paper=PAPER,
        judges=("Q14",),
        title="A geometric mean decides alike at every length",
        source="verl 0.9, NeMo-RL and AReaL 1.0: text and code of their geometric masks",
        statement="Whether a response whose tokens all drifted alike is masked by its geometric mean does not depend "
        "on its length.",
        scope="Exact, in float64: drifts of 0.0005 and 0.003 nats per token, 1 to 4,096 tokens, bounds 0.999 and "
        "1.002.",
        unit="share of lengths and drifts",
        measure=lambda: _depends_on_length('importance_correction(preset="geometric")'),
        tolerance=0.0,
        falsifier=Falsifier(
            "The product of the ratios is masked, outside 0.5 to 2.",
            measure=lambda: _depends_on_length('importance_correction(level="sequence",mode="mask",floor=0.5,cap=2.0)'),
        ),
        recorded="reproduced",
    )
)
