"""At ratio 1 every clipped objective pushes every token by exactly its advantage.

A hard clip, a gate, a band or a weight is built around 1: at r = 1 no bound is crossed, sech²(0) = 1, W = 1
and H_new/H_old = 1, so F = 1 and, reduction aside,

    ∂ℓ/∂log p = -A     for every objective, every token

What distinguishes the objectives therefore starts with the second update on a rollout, with stale rollouts,
or with shared parameters; a tabular policy that takes one update per rollout compares nothing.

Two consequences are exact as well. With a group-centred advantage, Σ_{A>0} A = Σ_{A<0} |A|, so at r = 1 with
equal lengths the positive share of Σ|ℓ| is one half in every group that is not degenerate; whatever tips it
later is length, the gate, or a baseline that is not the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.theory._prediction import Prediction, register
from analysis.theory.gradient_weights import (
    autograd_update,
    objectives_with_closed_form,
    random_tokens,
    reduction_coefficient,
)
from testbed.objectives import Objective, make_objective

__all__ = ["on_policy_weight", "positive_share"]

FloatArray = NDArray[np.float64]


def on_policy_weight(objective: str | Objective, seed: int = 0) -> FloatArray:
    """Weight F of every response token at ratio 1, found by autograd through the shipped loss, `(tokens,)`.

    The reduction's coefficient and the advantage are divided out, so what is left is 1 for a clipped
    objective. Any objective may be passed, also one that is not registered.

    >>> bool(np.allclose(on_policy_weight("sapo"), 1.0, rtol=1e-12))
    True
    """
    tokens = random_tokens(seed, on_policy=True)
    settings = make_objective(objective)
    coefficient = reduction_coefficient(settings.reduction, tokens.mask, getattr(settings, "max_length", None))
    weight = autograd_update(settings, tokens) / (coefficient * tokens.advantages)
    return weight[tokens.mask]


def positive_share(advantages: ArrayLike, lengths: ArrayLike | None = None) -> float:
    """Σ_{A>0} n A / Σ n |A| at ratio 1: the share of positive responses in the loss.

    Args:
        advantages: `(G,)`, one per response; at least one is not 0, otherwise the share is NaN.
        lengths: `(G,)`, tokens per response, under a token mean; None: equal.

    >>> positive_share([3.0, -1.0, -1.0, -1.0])
    0.5
    >>> positive_share([1.0, -1.0], lengths=[100, 300])
    0.25
    """
    values = np.asarray(advantages, dtype=np.float64)
    weights = np.ones_like(values) if lengths is None else np.asarray(lengths, dtype=np.float64)
    total = float((weights * np.abs(values)).sum())
    return float((weights * np.maximum(values, 0)).sum()) / total if total else float("nan")


register(
    Prediction(
        id="T1",
        name="on-policy-identity",
        statement="At ratio 1 every objective with a clip, a gate or a band has the same gradient, F = 1.",
        route="autograd through each shipped loss on a batch whose current and old policy are equal",
        unit="weight of a token",
        tolerance=1e-12,
        predict=lambda: np.ones((len(objectives_with_closed_form()), on_policy_weight("ppo").size)),
        measure=lambda: np.stack([on_policy_weight(name) for name in objectives_with_closed_form()]),
    )
)
