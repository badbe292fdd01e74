"""DCPO's probability-dependent clip bounds: where they come from, where they bind, and what they allow.

The rule is |(r-1)·p| ≤ ε with p = r q, which bounds a change of ratio weighted by the *new* probability:

    upper   r (r-1) q = ε_high   =>   high(q) = ½ + ½√(1 + 4ε_high/q), at most r_max
    lower   r (1-r) q = ε_low    =>   low(q)  = ½ + ½√(1 - 4ε_low/q),  if q ≥ 4ε_low

r(1-r) ≤ ¼, so below q = 4ε_low no r in [0, 1] violates the rule and the bound ½ there is a convention.

Consequences, each by substitution:

* the cap binds for q < ε_high/(r_max (r_max - 1)), 1/450 at the defaults;
* high(q) q = p = 1 where ½q + ½√(q² + 4ε_high q) = 1, i.e. q = 1/(1 + ε_high): more probable tokens cannot be
  clipped;
* a fixed bound 1 + e is met at q = ε_high/(e(1 + e)): 1/1.2 for e = 0.2, 0.558 for e = 0.28, and DCPO is the
  tighter one above; low(q) = 1 - e at q = ε_low/(e(1 - e)), which is 1 for e = 0.2;
* the largest change of probability is (√(q² + 4ε_high q) - q)/2 ≈ √(ε_high q), where a fixed bound allows e
  q.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray

from analysis.theory._prediction import Prediction, register
from testbed.batch import TokenBatch
from testbed.objectives import make_objective
from testbed.objectives.dcpo import DCPO

__all__ = [
    "cap_probability",
    "coincidence_probability",
    "largest_gain",
    "lower_bound",
    "promotion_iterations",
    "unclippable_probability",
    "upper_bound",
]

FloatArray = NDArray[np.float64]


def upper_bound(old_probability: ArrayLike, clip_high: float = 0.2, ratio_max: float = 10.0) -> FloatArray:
    """high(q) = min(½ + ½√(1 + 4ε_high/q), r_max), a ratio; any shape.

    >>> float(upper_bound(0.1))  # 1 + 0.8/0.1 = 9
    2.0
    """
    old = np.asarray(old_probability, dtype=np.float64)
    return np.minimum(0.5 + 0.5 * np.sqrt(1 + 4 * clip_high / old), ratio_max)


def lower_bound(old_probability: ArrayLike, clip_low: float = 0.16) -> FloatArray:
    """low(q) = ½ + ½√max(1 - 4ε_low/q, 0), a ratio; any shape.

    >>> round(float(lower_bound(1.0)), 12), float(lower_bound(0.64))
    (0.8, 0.5)
    """
    old = np.asarray(old_probability, dtype=np.float64)
    return np.asarray(0.5 + 0.5 * np.sqrt(np.maximum(1 - 4 * clip_low / old, 0.0)))


def cap_probability(clip_high: float = 0.2, ratio_max: float = 10.0) -> float:
    """Old probability below which the cap r_max binds: ε_high/(r_max (r_max - 1)).

    >>> round(1 / cap_probability(), 9)
    450.0
    """
    return clip_high / (ratio_max * (ratio_max - 1))


def unclippable_probability(clip_high: float = 0.2) -> float:
    """Old probability above which the upper bound lies beyond p = 1: 1/(1 + ε_high).

    >>> round(unclippable_probability(), 6)
    0.833333
    """
    return 1 / (1 + clip_high)


def coincidence_probability(fixed_high: float, clip_high: float = 0.2) -> float:
    """Old probability at which high(q) equals the fixed bound 1 + e: ε_high/(e (1 + e)).

    >>> round(coincidence_probability(0.28), 3)
    0.558
    """
    return clip_high / (fixed_high * (1 + fixed_high))


def largest_gain(old_probability: ArrayLike, clip_high: float = 0.2, ratio_max: float = 10.0) -> FloatArray:
    """Largest p - q inside the bound, q(high(q) - 1) = min((√(q² + 4ε_high q) - q)/2, (r_max - 1)q).

    The gain past p = 1 is not taken: above q = 1/(1 + ε_high) it is 1 - q.

    >>> round(float(largest_gain(0.1)), 12)
    0.1
    """
    old = np.asarray(old_probability, dtype=np.float64)
    free = (np.sqrt(old**2 + 4 * clip_high * old) - old) / 2
    return np.minimum(np.minimum(free, (ratio_max - 1) * old), 1 - old)


def promotion_iterations(
    old_probability: float, target: float = 0.5, fixed_high: float | None = None, clip_high: float = 0.2
) -> int:
    """Rollouts until an arm pushed to its bound every time reaches the target probability.

    Args:
        old_probability: q at the start.
        target: where the count stops.
        fixed_high: e of a fixed bound 1 + e; None: DCPO's bound.
        clip_high: ε_high of DCPO.

    >>> promotion_iterations(0.01, fixed_high=0.2), promotion_iterations(0.01)  # log 50 / log 1.2 = 21.5
    (22, 5)
    """
    probability, count = old_probability, 0
    while probability < target:
        probability *= float(upper_bound(probability, clip_high)) if fixed_high is None else 1 + fixed_high
        count += 1
    return count


# -- predictions ---------------------------------------------------------------------------------------------

_PROBABILITIES = np.geomspace(1e-4, 1.0, 41)


def _root(constraint: str, old: float) -> float:
    """The bound as a root of its defining condition, between the point where it cannot bind and the cap."""
    root = scipy.optimize.brentq
    if constraint == "upper":
        return 10.0 if 90 * old < 0.2 else root(lambda r: r * (r - 1) * old - 0.2, 1, 10, xtol=1e-15, rtol=1e-14)
    return 0.5 if old <= 0.64 else root(lambda r: r * (1 - r) * old - 0.16, 0.5, 1, xtol=1e-15, rtol=1e-14)


_GAIN_AT = np.array([1e-3, 0.01, 0.1, 0.4, 0.7])


def _shipped_bounds(old: FloatArray) -> FloatArray:
    objective = make_objective("dcpo")
    assert isinstance(objective, DCPO)
    return np.stack([bound.numpy() for bound in objective.bounds(torch.tensor(old))])


def _shipped(old: float) -> tuple[float, float]:
    low, high = _shipped_bounds(np.array([old]))
    return float(low[0]), float(high[0])


def _last_with_gradient(old: float) -> float:
    new = torch.arange(0.5e-5, 1.0, 1e-5, dtype=torch.float64)
    log_probs = new.log()[:, None].requires_grad_()
    ones = torch.ones_like(log_probs)
    batch = TokenBatch(
        log_probs=log_probs, old_log_probs=math.log(old) * ones.detach(), advantages=ones.detach(), mask=ones.bool()
    )
    (gradient,) = torch.autograd.grad(make_objective("dcpo")(batch).loss.sum(), log_probs)
    return float(new[gradient[:, 0] != 0].max())


register(
    Prediction(
        id="T8",
        name="dcpo-bounds",
        statement="DCPO's bounds solve r(r-1)q = ε_high up to the cap and r(1-r)q = ε_low down to one half.",
        route="root finding on the defining condition, for 41 probabilities from 1e-4 to 1",
        unit="ratio",
        tolerance=1e-12,
        predict=lambda: np.stack([lower_bound(_PROBABILITIES), upper_bound(_PROBABILITIES)]),
        measure=lambda: [[_root(side, q) for q in _PROBABILITIES] for side in ("lower", "upper")],
    )
)
register(
    Prediction(
        id="T8",
        name="dcpo-shipped-bounds",
        statement="The shipped objective clips at these bounds.",
        route="the bounds of the shipped objective, in torch",
        unit="ratio",
        tolerance=1e-14,
        predict=lambda: np.stack([lower_bound(_PROBABILITIES), upper_bound(_PROBABILITIES)]),
        measure=lambda: _shipped_bounds(_PROBABILITIES),
    )
)
register(
    Prediction(
        id="T8",
        name="dcpo-coincidences",
        statement="high(q) meets 1.2 and p = 1 at q = 1/1.2, 1.28 at 0.558 and the cap at 1/450; low(1) = 0.8.",
        route="root finding on the shipped objective's bounds as functions of q",
        unit="probability",
        tolerance=1e-9,
        predict=lambda: [
            unclippable_probability(),
            coincidence_probability(0.2),
            coincidence_probability(0.28),
            cap_probability(ratio_max=10.0 - 1e-9),
            1.0,
        ],
        measure=lambda: [
            scipy.optimize.brentq(lambda q: q * _shipped(q)[1] - 1, 0.5, 1, xtol=1e-14),
            scipy.optimize.brentq(lambda q: _shipped(q)[1] - 1.2, 0.5, 1, xtol=1e-14),
            scipy.optimize.brentq(lambda q: _shipped(q)[1] - 1.28, 0.3, 1, xtol=1e-14),
            scipy.optimize.brentq(lambda q: _shipped(q)[1] - (10 - 1e-9), 1e-3, 1, xtol=1e-14),
            scipy.optimize.brentq(lambda q: _shipped(q)[0] - 0.8, 0.7, 1.1, xtol=1e-14),
        ],
    )
)
register(
    Prediction(
        id="T8",
        name="dcpo-largest-gain",
        statement="One update can raise a probability by (√(q² + 4ε q) - q)/2, of order √(ε q), not ε q.",
        route="largest p on a fine grid at which the shipped loss still has a gradient",
        unit="probability",
        # The grid of new probabilities has a spacing of 1e-5.
        tolerance=1e-5,
        predict=lambda: largest_gain(_GAIN_AT),
        measure=lambda: [_last_with_gradient(q) - q for q in _GAIN_AT],
    )
)
