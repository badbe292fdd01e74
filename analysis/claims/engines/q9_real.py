"""Q9. REAL's weights."""

from __future__ import annotations

import torch

from analysis.claims.engines import PAPER, largest
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from testbed.batch import TokenBatch
from testbed.objectives import make_objective

file_entry(
    Entry(
        number="Q9",
        source=PAPER,
        statement="REAL: the weight of a response is monotone in its score and at most 1/τ; 6.7 points over DAPO at "
        "1.5B, 6.2 over DAPO and 1.7 over GSPO at 7B, without collapse or explosion of entropy.",
        status="exact",
        reason="The scores are of language models out of reach here.",
    )
)

SOURCE = "REAL, arXiv 2602.05630, abstract; the authors' code"


def _weights(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """|dL/dσ| of every response of one group, σ the mean log-ratio of its tokens."""
    old = torch.full((scores.numel(), 3), -2.0, dtype=torch.float64)
    log_probs = (old + scores.unsqueeze(-1)).requires_grad_()
    batch = TokenBatch(
        log_probs=log_probs, old_log_probs=old, advantages=torch.where(right, 1.0, -1.0).double(), mask=old < 0
    )
    (found,) = torch.autograd.grad(make_objective("real").loss(batch), log_probs)
    return found.sum(-1).abs()


def _violations(above: float) -> float:
    """By how much a weight exceeds `above`, or grows where it should fall, over groups of random scores."""
    generator = torch.Generator().manual_seed(3)
    worst = 0.0
    for size in (2, 4, 8, 16):
        scores = 4 * torch.randn(size, generator=generator, dtype=torch.float64)
        right = torch.arange(size) < size // 2
        found = _weights(scores, right)
        worst = max(worst, float((found - above).max()))
        for side, sign in ((right, 1.0), (~right, -1.0)):
            # Right responses weigh the less the likelier they became, wrong ones the more.
            ordered = found[side][(sign * scores[side]).argsort()]
            worst = max(worst, float((ordered.diff()).max()) if ordered.numel() > 1 else 0.0)
    return worst


register(
    ExactClaim(
        id="engines/real-weights-are-bounded",
        paper=PAPER,
        judges=("Q9",),
        title="REAL's weights are bounded and monotone",
        source=SOURCE,
        statement="No response weighs more than 1/τ, and among those of one label the weight falls the further a right "
        "response has risen, or a wrong one has fallen.",
        scope="Exact, in float64: groups of 2 to 16 with scores of a standard deviation of 4, τ = 0.5.",
        unit="weight",
        measure=lambda: _violations(2.0),
        tolerance=1e-12,
        falsifier=Falsifier("The bound is 1 instead of 1/τ = 2.", measure=lambda: _violations(1.0)),
        recorded="reproduced",
    )
)


def _imbalance(right: int) -> float:
    """Difference of the two sides' summed weights at ratio 1, in a group of eight."""
    found = _weights(torch.zeros(8, dtype=torch.float64), torch.arange(8) < right)
    return largest([float(found[:right].sum() - found[right:].sum())])


register(
    ExactClaim(
        id="engines/real-sides-are-balanced",
        paper=PAPER,
        judges=("Q9",),
        title="Right and wrong responses weigh the same in all",
        source=f"{SOURCE}; the reading that a classification loss balances its classes",
        statement="At ratio 1 the right responses of a group of eight weigh as much as its wrong ones, whatever their "
        "number.",
        scope="Exact, in float64. A response weighs 1/(τ(1 + n)) among n of its label, so that n of them weigh "
        "n/(τ(1 + n)): a lone right one 1, seven wrong ones 1.75.",
        unit="weight",
        measure=lambda: largest([_imbalance(right) for right in range(1, 8)]),
        tolerance=1e-9,
        falsifier=Falsifier("Only groups with one right response are looked at.", measure=lambda: _imbalance(1)),
        recorded="refuted",
    )
)
