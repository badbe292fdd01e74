"""Exact statements that every other claim stands on: no randomness, judged by their largest deviation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.claims._claim import ExactClaim, Falsifier, RecordedVerdict, register
from analysis.theory import entropy_dynamics, predictions, sapo_gate
from analysis.theory.dcpo_bounds import lower_bound, upper_bound
from analysis.theory.gradient_weights import autograd_update, random_tokens, token_update

EXACT_SCOPE = "Exact, in float64, for the objectives of this project; no environment or model enters."


def _deviation(identifier: str) -> Callable[[], float]:
    """Largest error over the predictions filed under a number, each in multiples of its own tolerance."""

    def measure() -> float:
        compared = [item.compare() for item in predictions() if item.id == identifier]
        # numpy's maximum hands a NaN on, where Python's might hide it.
        return float(np.max([found.error / found.tolerance if found.tolerance else found.error for found in compared]))

    return measure


def _register(
    name: str,
    identifier: str,
    title: str,
    source: str,
    statement: str,
    sabotage: str,
    measure: Callable[[], float],
    recorded: RecordedVerdict = "reproduced",
) -> None:
    register(
        ExactClaim(
            id=f"theory/{name}",
            paper="Theory",
            title=title,
            source=source,
            statement=statement,
            scope=EXACT_SCOPE,
            unit="multiples of each comparison's tolerance",
            measure=_deviation(identifier),
            tolerance=1.0,
            falsifier=Falsifier(sabotage, measure=measure),
            recorded=recorded,
        )
    )


def _off_policy_weights() -> float:
    tokens = random_tokens(0)
    weights = np.abs(token_update("ppo", tokens) / np.where(tokens.advantages == 0, 1, tokens.advantages))
    inside = weights[weights > 0]
    return float(np.abs(inside / inside.max() - 1).max() / 1e-12)


def _wrong_bound() -> float:
    tokens = random_tokens(0)
    return float(np.abs(token_update("ppo(clip_high=0.1)", tokens) - autograd_update("ppo", tokens)).max() / 1e-12)


def _ungated_rate() -> float:
    state = entropy_dynamics.random_state(0)
    ungated = float(entropy_dynamics.entropy_rate(state.logits, state.advantages))
    gated = float(entropy_dynamics.entropy_rate(state.logits, entropy_dynamics.gated_advantages("ppo", state)))
    return abs(ungated - gated) / 1e-14


def _swapped_offsets() -> float:
    old = np.geomspace(1e-3, 1.0, 20)
    swapped = np.stack([lower_bound(old, 0.2), upper_bound(old, 0.16)])
    return float(np.abs(swapped - np.stack([lower_bound(old), upper_bound(old)])).max() / 1e-12)


def _wrong_temperature() -> float:
    ratios = np.linspace(0.5, 2.0, 7)
    return float(np.abs(sapo_gate.gate(ratios, 1.0) - sapo_gate.gate(ratios, 1.05)).max() / 1e-12)


_register(
    "on-policy-identity",
    "T1",
    "On-policy, all clipped objectives are one",
    "Follows from the objectives' equations (T1)",
    "At ratio 1 every objective with a clip, a gate or a band has the gradient weight 1, so they all take the "
    "same step.",
    "The weights are taken from a batch whose ratios differ from 1.",
    _off_policy_weights,
)
_register(
    "gradient-weights",
    "T2",
    "The shipped losses have the published gradients",
    "The papers' equations (T2)",
    "The gradient of every shipped loss equals the closed-form weight of its published equation.",
    "PPO's closed form uses an upper offset of 0.1 while the loss uses 0.2.",
    _wrong_bound,
)
_register(
    "entropy-rate",
    "T3",
    "Entropy moves at the rate of a gated covariance",
    "Entropy mechanism, arXiv 2505.22617, generalised to gated objectives (T3)",
    "Every gated objective moves the entropy of a softmax policy at the rate -Cov(π(log π + H), X·A), and a "
    "finite step "
    "departs from it in first order.",
    "The gate X is left out.",
    _ungated_rate,
)
_register(
    "dcpo-bounds",
    "T8",
    "DCPO's bounds",
    "DCPO, arXiv 2509.02333v2, eq. 4 and 27, and statement D9",
    "The bounds solve r(r-1)q = ε_high up to the cap and r(1-r)q = ε_low down to one half; a token with q > 1/1.2 can "
    "never be clipped from above.",
    "The two offsets are swapped.",
    _swapped_offsets,
)
_register(
    "sapo-gate",
    "T9",
    "SAPO's gate and its sequence limit",
    "SAPO, arXiv 2511.20347v2, eq. 5-9 and statement S3",
    "The gradient weight is r·sech²(τ(r-1)/2), and the mean token gate differs from the gate of the mean by at most "
    "(τ²/4)·Var of the log-ratios.",
    "The gate is evaluated at τ = 1.05 instead of 1.",
    _wrong_temperature,
)
