"""T2. The shipped gradients are the published ones."""

from __future__ import annotations

import numpy as np

from analysis.claims import ce_gppo
from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import autograd_update, random_tokens, token_update

file_entry(
    Entry(
        number="T2",
        source=PAPER,
        statement="The gradients of the shipped losses are the closed-form weights of the published equations.",
        status="exact",
    )
)


def _wrong_bound() -> float:
    tokens = random_tokens(0)
    return float(np.abs(token_update("ppo(clip_high=0.1)", tokens) - autograd_update("ppo", tokens)).max() / 1e-12)


register(
    exact_statement(
        "gradient-weights",
        number="T2",
        title="The shipped losses have the published gradients",
        source="The papers' equations (T2)",
        statement="The gradient of every shipped loss equals the closed-form weight of its published equation.",
        sabotage="PPO's closed form uses an upper offset of 0.1 while the loss uses 0.2.",
        measure=_wrong_bound,
    )
)


def _zero_betas_against_ppo(beta: float) -> float:
    tokens = random_tokens(1)
    restored = autograd_update(f"ce_gppo(beta1={beta},beta2={beta})", tokens)
    return float(abs(restored - autograd_update("ppo", tokens)).max())


register(
    ExactClaim(
        id="ce-gppo/zero-betas-are-ppo",
        paper=ce_gppo.PAPER,
        judges=("T2",),
        title="β₁ = β₂ = 0 has PPO's gradient",
        source=f"{ce_gppo.CITATION}, section 3.2",
        statement="With β₁ = β₂ = 0 the gradient of CE-GPPO is PPO's.",
        scope="Exact, in float64, on tokens of every sign and on both sides of both bounds. It is true of gradients "
        "only: the loss values differ, because a clipped token is worth 0 instead of a constant.",
        unit="loss per nat of log-probability",
        measure=lambda: _zero_betas_against_ppo(0.0),
        tolerance=1e-15,
        falsifier=Falsifier(
            "Both coefficients are 0.01 instead of 0.",
            measure=lambda: _zero_betas_against_ppo(0.01),
        ),
        recorded="reproduced",
    )
)
