"""Q13. IcePop and KPop under mismatch."""

from __future__ import annotations

import torch

from analysis.claims.engines import PAPER
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from testbed.batch import TokenBatch
from testbed.objectives import make_objective

file_entry(
    Entry(
        number="Q13",
        source=PAPER,
        statement="Under growing mismatch IcePop masks fewer tokens as training goes on while the gap of log-"
        "probabilities widens; KPop's mask does not relax.",
        status="exact",
        reason="The course of a training run is not judged; which tokens the two bands can mask at all is.",
    )
)


def _never_dropped(preset: str) -> float:
    """Share of sampler probabilities at which no trainer probability up to 1, however high, is dropped."""
    sampler = torch.linspace(0.21, 0.99, 79, dtype=torch.float64).view(-1, 1, 1)
    # What the trainer may find, from the sampler's own probability to near certainty.
    rises = torch.linspace(0, 1, 200, dtype=torch.float64)
    old = (sampler + (1 - 1e-9 - sampler) * rises).log()
    batch = TokenBatch(
        log_probs=old,
        old_log_probs=old,
        advantages=torch.ones_like(old),
        mask=old <= 0,
        sampler_log_probs=sampler.log().expand_as(old),
    )
    weights = make_objective("importance_correction", preset=preset).weights(batch)  # type: ignore[attr-defined]
    return float((weights > 0).all(-1).double().mean())


register(
    ExactClaim(
        id="engines/icepop-never-masks-likely-tokens",
        paper=PAPER,
        judges=("Q13",),
        title="IcePop cannot mask a likely token upwards",
        source="IcePop, arXiv 2510.18855, and KPop as AReaL 1.0 and prime-rl cite it; follows from the bands",
        statement="A token that the sampler gave more than 0.21 is never dropped by IcePop's upper bound of 5, however "
        "certain the trainer is of it.",
        scope="Exact, in float64, at the published settings. A policy that becomes sure of what it samples therefore "
        "leaves IcePop's reach while it trains, which is one way in which its mask relaxes.",
        unit="share of sampler probabilities at which something is dropped",
        measure=lambda: 1 - _never_dropped("icepop"),
        tolerance=0.0,
        falsifier=Falsifier("KPop's band at φ = 0.1 takes its place.", measure=lambda: 1 - _never_dropped("kpop")),
        recorded="reproduced",
    )
)
