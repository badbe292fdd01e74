"""Q1. A quadratic penalty bounds the drift that nothing clips."""

from __future__ import annotations

import torch

from analysis.claims.engines import PAPER, gradient, largest
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q1",
        source=PAPER,
        statement="DRO without any clip: drift is bounded by |A|/β per token, so that ten times β leaves a tenth of "
        "it; Kimi's form bounds the sum over a response by |A|/τ instead.",
        status="exact",
    )
)

_BETAS = (0.05, 0.5, 5.0)
_ADVANTAGES = (2.0, 0.5, -0.5, -2.0)


def _token_gradients(stationary: float) -> float:
    """Largest gradient of dro at z = stationary·A/β, a token alone in its batch."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return largest(
        [
            float(gradient(f"dro(beta={beta})", (one * stationary * a / beta).exp(), one * a, -60.0 * one))
            for beta in _BETAS
            for a in _ADVANTAGES
            if abs(a / beta) < 20
        ]
    )


register(
    ExactClaim(
        id="engines/dro-drift-is-bounded",
        paper=PAPER,
        judges=("Q1",),
        title="DRO's drift stops at |A|/β",
        source="verl 0.9's dro and Tinker's documentation; the bound follows from the equation",
        statement="The gradient of a token is zero where its log-ratio is A/β.",
        scope="Exact, in float64, for β of 0.05 to 5 and |A| of 0.5 and 2, within the ±20 that a log-ratio is held at: "
        "at β = 0.05 and |A| = 2 nothing stops the token before that. With β = 0.1 and |A| = 1 the bound is a ratio of "
        "e^10: a soft brake, not a trust region.",
        unit="loss per nat",
        measure=lambda: _token_gradients(1.0),
        tolerance=1e-12,
        falsifier=Falsifier(
            "The half in front of the penalty is forgotten: the bound would be A/(2β).",
            measure=lambda: _token_gradients(0.5),
        ),
        recorded="reproduced",
    )
)


def _response_gradients(spread: float, stationary: float) -> float:
    """Largest gradient of kimi where log-ratios c + s and c - s of a response add up to stationary·A/τ."""
    shifts = torch.tensor([[spread, -spread]], dtype=torch.float64)
    found = []
    for a in _ADVANTAGES:
        log_ratios = stationary * a / 0.5 / 2 + shifts
        old = torch.full_like(shifts, -60.0)
        found.append(float(gradient("kimi(tau=0.5)", log_ratios.exp(), torch.full_like(old, a), old).abs().max()))
    return largest(found)


register(
    ExactClaim(
        id="engines/kimi-bounds-the-sum",
        paper=PAPER,
        judges=("Q1",),
        title="Kimi's penalty bounds the response, not the token",
        source="Kimi k1.5, arXiv 2501.12599, eq. 3 as ROLL restates it",
        statement="The gradient of a response is zero where its log-ratios add up to A/τ, however far its tokens are "
        "from each other.",
        scope="Exact, in float64, for two tokens up to 20 nats apart. What the three engines ship under the name "
        "penalises every token instead.",
        unit="loss per nat",
        measure=lambda: max(_response_gradients(spread, 1.0) for spread in (0.0, 1.0, 10.0)),
        tolerance=1e-12,
        falsifier=Falsifier(
            "The sum is twice as large.",
            measure=lambda: max(_response_gradients(spread, 2.0) for spread in (0.0, 1.0, 10.0)),
        ),
        recorded="reproduced",
    )
)
