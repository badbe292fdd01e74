"""SAPO's soft gate: its weight, its peak, and how far it is from a gate on the whole sequence.

**Gate.** f(r) = (4/τ) σ(τ(r-1)) has f'(r) = 4σ(1-σ) = sech²(τ(r-1)/2), because σ(x)(1-σ(x)) = 1/(4
cosh²(x/2)). The weight of a token is F = r f'(r); f'(1) = 1 for every τ, so on-policy SAPO is the unclipped
gradient.

**Peak.** d/dr [r sech²(τ(r-1)/2)] = 0 where 1 = τ r tanh(τ(r-1)/2), one root above 1: the largest weight a
token can have, 1.5747 at r = 2.06 for τ = 1.

**Sequence gate.** With g(z) = sech²(τz/2), g'' = (τ²/2) g (2 - 3g), at most τ²/2 in size, reached at 0.
Taylor's theorem around the mean z̄ then gives

    | mean_t g(z_t) - g(z̄) | ≤ ½ sup|g''| Var_t(z) = (τ²/4) Var_t(z)

which two tokens at ±s approach as s → 0: the left side is tanh²(τs/2), the bound (τs/2)².

**Logit step.** Raising or lowering log π_a moves logit a by (1-π_a) and every other by -π_v, and Σ_{v≠a} π_v
= 1-π_a: exactly half of the step's L1 length falls on tokens that were not sampled, for either sign of the
advantage.
"""

from __future__ import annotations

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from analysis.theory._prediction import Prediction, register
from analysis.theory.gradient_weights import Tokens, autograd_update

__all__ = ["gate", "peak", "sequence_gap", "sequence_gap_bound", "unsampled_share"]

FloatArray = NDArray[np.float64]


def gate(ratio: ArrayLike, tau: float) -> FloatArray:
    """sech²(τ(r-1)/2), the factor on r·A; any shape.

    >>> float(gate(1.0, 3.0)), round(float(gate(2.0, 1.0)), 3)
    (1.0, 0.786)
    """
    return np.asarray(1 / np.cosh(tau * (np.asarray(ratio, dtype=np.float64) - 1) / 2) ** 2)


def peak(tau: float) -> tuple[float, float]:
    """(r, F): where the weight r·gate(r) is largest, from 1 = τ r tanh(τ(r-1)/2), and its value there.

    >>> tuple(round(x, 4) for x in peak(1.0))
    (2.0601, 1.5747)
    """
    ratio = scipy.optimize.brentq(lambda r: tau * r * np.tanh(tau * (r - 1) / 2) - 1, 1.0, 1 + 4 / tau, xtol=1e-14)
    return float(ratio), float(ratio * gate(ratio, tau))


def sequence_gap(log_ratios: ArrayLike, tau: float) -> FloatArray:
    """|mean_t sech²(τ z_t/2) - sech²(τ z̄/2)| over the last axis, `(..., T)` to `(...,)`.

    >>> float(sequence_gap([0.3, 0.3], 1.0))
    0.0
    """
    logs = np.asarray(log_ratios, dtype=np.float64)
    token = 1 / np.cosh(tau * logs / 2) ** 2
    return np.asarray(np.abs(token.mean(-1) - 1 / np.cosh(tau * logs.mean(-1) / 2) ** 2))


def sequence_gap_bound(log_ratios: ArrayLike, tau: float) -> FloatArray:
    """(τ²/4) Var_t(z) over the last axis, population variance.

    >>> float(sequence_gap_bound([-0.2, 0.2], 1.0))
    0.010000000000000002
    """
    return np.asarray(tau**2 / 4 * np.asarray(log_ratios, dtype=np.float64).var(-1))


def unsampled_share(logits: ArrayLike, action: int) -> float:
    """Share of the L1 logit step on tokens other than the sampled one: Σ_{v≠a} π_v / (1-π_a + Σ_{v≠a} π_v).

    >>> unsampled_share([1.0, 0.0, -2.0], 1)
    0.5
    """
    policy = softmax(np.asarray(logits, dtype=np.float64))
    others = float(policy.sum() - policy[action])
    return others / (float(1 - policy[action]) + others)


# -- predictions ---------------------------------------------------------------------------------------------

_RATIOS = np.linspace(0.01, 6.0, 60)
_TAUS = (0.5, 1.0, 1.05, 2.0, 5.0)


def _shipped_gate(tau: float) -> FloatArray:
    """F/r of the shipped loss for both signs of A, over `_RATIOS`, `(2, ratios)`."""
    rows = np.repeat(np.array([[1.0], [-1.0]]), _RATIOS.size, axis=1)
    ones = np.ones_like(rows)
    tokens = Tokens(np.log(_RATIOS) * ones - 2.0, -2.0 * ones, rows, ones.astype(bool), ones, ones)
    update = autograd_update(f"sapo(tau_pos={tau},tau_neg={tau},reduction=token_mean)", tokens)
    return update * rows * rows.size / _RATIOS


def _numerical_peak(tau: float) -> list[float]:
    best = scipy.optimize.minimize_scalar(lambda r: -r * float(gate(r, tau)), bounds=(1, 1 + 4 / tau), method="bounded")
    return [-best.fun]


def _largest_gap_in_bounds(spread: float, tau: float) -> float:
    """Largest gap/bound over 4000 random sequences of log-ratios, and over the worst pair of tokens."""
    generator = np.random.default_rng(0)
    logs = generator.normal(size=(4000, 1)) * spread + spread * generator.standard_t(3, size=(4000, 6))
    return float((sequence_gap(logs, tau) / sequence_gap_bound(logs, tau)).max())


def _autograd_share(action: int, sign: float) -> float:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0, -3.0], dtype=torch.float64, requires_grad=True)
    (step,) = torch.autograd.grad(sign * torch.log_softmax(logits, 0)[action], logits)
    size = step.abs()
    return float((size.sum() - size[action]) / size.sum())


register(
    Prediction(
        id="T9",
        name="sapo-gate",
        statement="SAPO multiplies r·A by sech²(τ(r-1)/2), for either sign of the advantage.",
        route="autograd through the shipped loss at 60 ratios and five temperatures",
        unit="weight over ratio",
        tolerance=1e-13,
        predict=lambda: [np.stack([gate(_RATIOS, tau)] * 2) for tau in _TAUS],
        measure=lambda: [_shipped_gate(tau) for tau in _TAUS],
    )
)
register(
    Prediction(
        id="T9",
        name="sapo-peak",
        statement="No token weighs more than the root of 1 = τ r tanh(τ(r-1)/2) allows: 1.5747 at τ = 1.",
        route="bounded numerical maximisation of r·gate",
        unit="weight",
        tolerance=1e-9,
        predict=lambda: [[peak(tau)[1]] for tau in _TAUS],
        measure=lambda: [_numerical_peak(tau) for tau in _TAUS],
    )
)
register(
    Prediction(
        id="T9",
        name="sapo-variance-bound",
        statement="Token gates differ from a gate on the sequence by at most (τ²/4) Var_t(log r).",
        route="20 heavy-tailed ensembles of 4000 sequences, spread 0.01 to 3; excess of gap over bound",
        unit="excess over the bound",
        # Only rounding may exceed a bound that is attained in the limit.
        tolerance=1e-9,
        predict=lambda: np.zeros(20),
        measure=lambda: [
            max(0.0, _largest_gap_in_bounds(spread, tau) - 1) for spread in (0.01, 0.1, 0.3, 1.0) for tau in _TAUS
        ],
    )
)
register(
    Prediction(
        id="T9",
        name="sapo-bound-attained",
        statement="Two tokens at ±s reach tanh²(τs/2)/(τs/2)² of that bound, which tends to 1.",
        route="the gap of such a pair, evaluated numerically",
        unit="gap over bound",
        # The gap is a difference of numbers near 1, of size 1e-4 at the smallest s.
        tolerance=1e-10,
        predict=lambda: [(np.tanh(s / 2) / (s / 2)) ** 2 for s in (0.02, 0.1, 0.5)],
        measure=lambda: [
            float(sequence_gap([-s, s], 1.0) / sequence_gap_bound([-s, s], 1.0)) for s in (0.02, 0.1, 0.5)
        ],
    )
)
register(
    Prediction(
        id="T9",
        name="half-of-the-step",
        statement="Half of a logit step's L1 length is on tokens not sampled, for positive and negative updates alike.",
        route="autograd of ±log π_a for every action",
        unit="share",
        tolerance=1e-14,
        predict=lambda: [[unsampled_share([0.5, -1.0, 2.0, 0.0, -3.0], a)] * 2 for a in range(5)],
        measure=lambda: [[_autograd_share(a, sign) for sign in (1.0, -1.0)] for a in range(5)],
    )
)
