"""Entropy moves without any signal: the drift caused by sampling noise alone, and where its sign changes.

Let the advantages of N samples be exchangeable with mean 0 and mean square 1, and independent of the actions,
as with a random reward standardised over its group. One step of learning rate η moves the logits by

    dz = (η/N) Σ_i A_i (e_{a_i} - π),     E[dz] = 0,     Cov(dz) = (η²/N) F,   F = diag(π) - ππᵀ

where the cross terms vanish because E[e_a - π] = 0 for each of two independent draws. To second order

    E[dH] = ½ tr(∇²H · Cov(dz)) = (η²/2N) tr(∇²H · F) + O(η³)

**The trace.** From ∂H/∂z_k = -π_k u_k, with ∂π_k/∂z_l = π_k(1[k=l] - π_l) and ∂u_k/∂z_l = 1[k=l] - π_l - π_l
u_l,

    ∂²H/∂z_k∂z_l = -π_k (1 + u_k) (1[k=l] - π_l) + π_k π_l u_l

Contracting with F_{kl} = π_k 1[k=l] - π_k π_l, and with S₂ = Σ π²,

    tr(∇²H F) = -Σ (1 + u) π² (1 - 2π + S₂) + Σ π³ u - S₂ Σ π² u

For a uniform policy u = 0 and the trace is -(K-1)/K²: noise lowers the entropy of a spread policy, as drift
does to the diversity of a population. For a peaked policy it is positive: noise raises it. With one token of
probability p and a flat tail the sign changes at one p, 0.824 for K = 2 and falling towards one half as K
grows.
"""

from __future__ import annotations

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from analysis.theory._prediction import Measurement, Prediction, register
from testbed.errors import ConfigError

__all__ = ["expected_entropy_drift", "flat_tail", "sign_change", "trace"]

FloatArray = NDArray[np.float64]


def trace(logits: ArrayLike) -> FloatArray:
    """tr(∇²H · F) of a softmax policy, `(..., K)` to `(...,)`, in nats per squared unit of logit.

    >>> round(float(trace(np.zeros(5))), 12)  # -(K-1)/K²
    -0.16
    """
    log_policy = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    policy = np.exp(log_policy)
    entropy = -(policy * log_policy).sum(-1, keepdims=True)
    excess = log_policy + entropy
    square = (policy**2).sum(-1, keepdims=True)
    first = ((1 + excess) * policy**2 * (1 - 2 * policy + square)).sum(-1)
    return np.asarray(-first + (policy**3 * excess).sum(-1) - square[..., 0] * (policy**2 * excess).sum(-1))


def expected_entropy_drift(logits: ArrayLike, learning_rate: float, samples: int) -> FloatArray:
    """E[dH] = (η²/2N) tr(∇²H · F) of one step on pure noise, `(...,)`, in nats, to second order in η.

    Args:
        logits: `(..., K)`.
        learning_rate: η, on the mean over samples.
        samples: N.

    >>> round(float(expected_entropy_drift(np.zeros(5), 0.5, 64)), 9)  # 0.25/128 · (-0.16)
    -0.0003125
    """
    return learning_rate**2 / (2 * samples) * trace(logits)


def flat_tail(probability: float, arms: int) -> FloatArray:
    """Logits of a policy with one token of this probability and K-1 equal others, `(K,)`.

    >>> np.exp(flat_tail(0.5, 3)).round(12).tolist()
    [0.5, 0.25, 0.25]
    """
    if not (0 < probability < 1 and arms >= 2):
        raise ConfigError(
            f"probability {probability} and arms {arms}; expected a probability in (0, 1) and 2 or more arms"
        )
    return np.log(np.concatenate(([probability], np.full(arms - 1, (1 - probability) / (arms - 1)))))


def sign_change(arms: int) -> float:
    """Top probability over a flat tail at which noise stops lowering the entropy and starts raising it.

    >>> round(sign_change(2), 3), round(sign_change(1000), 3)
    (0.824, 0.569)
    """
    return float(
        scipy.optimize.brentq(lambda p: float(trace(flat_tail(p, arms))), max(1 / arms + 0.02, 0.3), 0.99, xtol=1e-13)
    )


# -- predictions ---------------------------------------------------------------------------------------------

_ETA, _SAMPLES, _GROUPS = 0.05, 64, 20_000


def _random_policies() -> list[FloatArray]:
    generator = np.random.default_rng(1)
    return [scale * generator.normal(size=arms) for arms in (2, 5, 20) for scale in (0.5, 1.5, 3.0) for _ in range(3)]


def _hessian_trace(logits: FloatArray) -> float:
    """tr(∇²H F) from the autograd Hessian and the Fisher matrix, no closed form in between."""

    def entropy(z: torch.Tensor) -> torch.Tensor:
        log_policy = torch.log_softmax(z, 0)
        return -(log_policy.exp() * log_policy).sum()

    point = torch.tensor(logits)
    policy = torch.softmax(point, 0)
    hessian = torch.autograd.functional.hessian(entropy, point)
    return float((hessian * (policy.diag() - policy.outer(policy))).sum())


def _noise_cases() -> list[FloatArray]:
    return [np.zeros(5), np.zeros(20), *(flat_tail(p, arms) for arms in (10, 100) for p in (0.3, 0.6, 0.9))]


def _simulate_noise() -> Measurement:
    """Mean entropy change over groups of random ±1 advantages, each group paired with its mirror image.

    The mirror (all advantages negated) removes the first-order term, which would drown the drift.
    """
    generator = np.random.default_rng(2)
    values, errors = [], []
    for logits in _noise_cases():
        policy = np.exp(log_softmax(logits))
        up, down = generator.multinomial(_SAMPLES // 2, policy, size=(2, _GROUPS))
        step = _ETA / _SAMPLES * (up - down)
        change = []
        for moved in (logits + step, logits - step):
            log_policy = log_softmax(moved, axis=-1)
            change.append(-(np.exp(log_policy) * log_policy).sum(-1))
        start = -(policy * np.log(policy)).sum()
        paired = (change[0] + change[1]) / 2 - start
        values.append(paired.mean())
        errors.append(paired.std(ddof=1) / np.sqrt(_GROUPS))
    return Measurement(values, errors)


register(
    Prediction(
        id="T12",
        name="drift-trace",
        statement="tr(∇²H F) = -Σ(1+u)π²(1-2π+S₂) + Σπ³u - S₂Σπ²u.",
        route="autograd Hessian of the entropy times the Fisher matrix, 27 policies",
        unit="nats per squared logit",
        tolerance=1e-14,
        predict=lambda: [float(trace(logits)) for logits in _random_policies()],
        measure=lambda: [_hessian_trace(logits) for logits in _random_policies()],
    )
)
register(
    Prediction(
        id="T12",
        name="drift-simulated",
        statement="Random rewards move the entropy by (η²/2N) tr(∇²H F): down for spread policies, up for peaked ones.",
        route=f"simulation, {_GROUPS} mirrored groups of {_SAMPLES} at η = {_ETA} for each of 8 policies",
        unit="nats a step",
        # Eight comparisons: the largest of them exceeds 3.7 standard errors with probability 0.002.
        tolerance=3.7,
        scale="standard errors",
        predict=lambda: [float(expected_entropy_drift(logits, _ETA, _SAMPLES)) for logits in _noise_cases()],
        measure=_simulate_noise,
    )
)
register(
    Prediction(
        id="T12",
        name="drift-sign-change",
        statement="With a flat tail noise lowers the entropy below one top probability and raises it above.",
        route="root finding on the autograd Hessian trace, K = 2, 10, 50",
        unit="probability",
        tolerance=1e-10,
        predict=lambda: [sign_change(arms) for arms in (2, 10, 50)],
        measure=lambda: [
            scipy.optimize.brentq(lambda p, arms=arms: _hessian_trace(flat_tail(p, arms)), 0.53, 0.95, xtol=1e-13)
            for arms in (2, 10, 50)
        ],
    )
)
