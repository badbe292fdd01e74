"""How far a policy can drift while every *sampled* ratio stays inside its clip interval.

**Supremum.** S are the sampled actions, with old mass Q, M = 1 - Q is the mass of the others and q_min the
smallest old probability among them. Over all distributions π with π_a/q_a ∈ [1-ε_low, 1+ε_high] on S,

    sup TV(π, q) = M + ε_low Q - q_min

Write P and N for the total gain and loss on S, N ≤ ε_low Q. The others then hold M - P + N, and their gain is
largest if it all sits on one action u: TV = P + (M - P + N) - q_u, which grows with N and with a smaller q_u.
It is attained by r = 1-ε_low on S and everything else on the rarest action that was not sampled. With r = 1
on S it is M - q_min while KL(q‖π) is infinite and KL(π‖q) = M log(M/q_min).

**A tabular softmax cannot do that.** The logits of actions not sampled move by -C q_k with one constant C, so
within that block the log-ratios spread over an interval of width δ = |C|(max q - min q) only. Two
distributions whose log-ratio spans at most δ differ by at most tanh(δ/4) in total variation, since Σ(e^b -
1)^+ under E e^b = 1 is largest for two values ±δ/2. With all sampled ratios in [1-ε, 1+ε] the block's mass
moves by at most εQ, so

    TV(π, q) ≤ εQ + M tanh(δ/4)

The worst case needs shared parameters.

**When an entropy-ratio band binds.** For a token of probability p against all others, H = h(p), dH/dp =
log((1-p)/p) and dp = p dr/r, so at r = 1

    d log H/dr = p log((1-p)/p)/H(p)

which is large for confident states: a band of ±5 % on H is reached at |r-1| ≈ 0.05 H/(p |log((1-p)/p)|).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr, softmax

from analysis.theory._prediction import Prediction, register
from testbed.errors import ConfigError

__all__ = [
    "WorstCase",
    "band_ratio_change",
    "entropy_sensitivity",
    "tabular_bound",
    "total_variation",
    "unsampled_worst_case",
]

FloatArray = NDArray[np.float64]


class WorstCase(NamedTuple):
    """The largest drift the clip interval of the sampled actions permits.

    Attributes:
        total_variation: sup TV(π, q), in [0, 1].
        policy: `(K,)`, the distribution that attains it.
        divergence: KL(π‖q) of that distribution, nats.
    """

    total_variation: float
    policy: FloatArray
    divergence: float


def total_variation(policy: ArrayLike, old_policy: ArrayLike) -> FloatArray:
    """TV = ½ Σ |π - q|, `(..., K)` to `(...,)`.

    >>> float(total_variation([1.0, 0.0], [0.5, 0.5]))
    0.5
    """
    return np.asarray(np.abs(np.asarray(policy) - np.asarray(old_policy)).sum(-1) / 2)


def unsampled_worst_case(old_policy: ArrayLike, sampled: ArrayLike, clip_low: float) -> WorstCase:
    """Sup TV = M + ε_low Q - q_min, with the policy that attains it.

    Args:
        old_policy: q `(K,)`, positive, sums to 1.
        sampled: bool `(K,)`, the actions whose ratio is held at or above 1 - ε_low.
        clip_low: ε_low in [0, 1].

    Raises:
        ConfigError: every action is sampled, so nothing is left unconstrained.

    >>> round(unsampled_worst_case([0.5, 0.3, 0.2], [True, False, False], 0.2).total_variation, 12)  # ½ + 0.1 - 0.2
    0.4
    """
    old, seen = np.asarray(old_policy, dtype=np.float64), np.asarray(sampled, dtype=bool)
    if seen.all() or old.shape != seen.shape or not 0 <= clip_low <= 1:
        raise ConfigError(
            f"old_policy {old.shape}, sampled {seen.shape} with {int(seen.sum())} true, clip_low {clip_low}; expected "
            "equal shapes, at least one action that was not sampled, and clip_low in [0, 1]"
        )
    mass = old[seen].sum()
    rest = np.where(seen, np.inf, old)
    worst = np.where(seen, (1 - clip_low) * old, 0.0)
    worst[np.argmin(rest)] += 1 - worst.sum()
    return WorstCase(
        total_variation=float(1 - mass + clip_low * mass - rest.min()),
        policy=worst,
        divergence=float(rel_entr(worst, old).sum()),
    )


def tabular_bound(old_policy: ArrayLike, sampled: ArrayLike, clip: float, net_weight: float) -> float:
    """εQ + M tanh(δ/4): largest TV of one tabular softmax step whose sampled ratios stay in [1-ε, 1+ε].

    Args:
        old_policy: q `(K,)`.
        sampled: bool `(K,)`.
        clip: ε.
        net_weight: C, learning rate times the summed update weights: unsampled logits move by -C q_k.

    >>> tabular_bound([0.5, 0.25, 0.25], [True, False, False], 0.2, 3.0)  # equal tails move rigidly
    0.1
    """
    old, seen = np.asarray(old_policy, dtype=np.float64), np.asarray(sampled, dtype=bool)
    spread = abs(net_weight) * np.ptp(old[~seen])
    mass = float(old[seen].sum())
    return float(clip * mass + (1 - mass) * np.tanh(spread / 4))


def entropy_sensitivity(probability: ArrayLike) -> FloatArray:
    """Slope d log H/dr = p log((1-p)/p)/H at r = 1 for a state with two outcomes; negative for p > ½.

    >>> float(entropy_sensitivity(0.5))
    0.0
    """
    p = np.asarray(probability, dtype=np.float64)
    entropy = -p * np.log(p) - (1 - p) * np.log1p(-p)
    return np.asarray(p * (np.log1p(-p) - np.log(p)) / entropy)


def band_ratio_change(probability: ArrayLike, band: float = 0.05) -> FloatArray:
    """|r - 1| at which the entropy ratio leaves 1 ± band, to first order, for a token of this probability.

    >>> band_ratio_change([0.6, 0.9, 0.99]).round(4).tolist()
    [0.1383, 0.0082, 0.0006]
    """
    return np.asarray(band / np.abs(entropy_sensitivity(probability)))


# -- predictions ---------------------------------------------------------------------------------------------


def _small_cases() -> list[tuple[FloatArray, NDArray[np.bool_], float]]:
    generator = np.random.default_rng(0)
    return [
        (softmax(1.5 * generator.normal(size=5)), np.arange(5) < seen, clip)
        for seen in (1, 2, 4)
        for clip in (0.0, 0.2)
        for _ in range(2)
    ]


def _linear_programme(old: FloatArray, sampled: NDArray[np.bool_], clip: float) -> float:
    """Sup TV as the best of 2^K linear programmes, one per sign of π - q; nothing is assumed about the optimum."""
    bounds = [((1 - clip) * q, (1 + clip) * q) if seen else (0, 1) for q, seen in zip(old, sampled, strict=True)]
    best = 0.0
    for signs in itertools.product((-1.0, 1.0), repeat=old.size):
        found = scipy.optimize.linprog(-np.array(signs) / 2, A_eq=np.ones((1, old.size)), b_eq=[1.0], bounds=bounds)
        best = max(best, float(-found.fun - np.dot(signs, old) / 2))
    return best


def _largest_excess(old: FloatArray, sampled: NDArray[np.bool_], clip: float) -> float:
    """How far 20 000 random feasible policies exceed the supremum; 0 if none does."""
    generator = np.random.default_rng(1)
    draws = 20_000
    policies = np.empty((draws, old.size))
    policies[:, sampled] = old[sampled] * generator.uniform(1 - clip, 1 + clip, size=(draws, int(sampled.sum())))
    shares = generator.dirichlet(np.full(int((~sampled).sum()), 0.1), size=draws)
    remaining = 1 - policies[:, sampled].sum(1)
    policies[:, ~sampled] = remaining[:, None] * shares
    feasible = policies[remaining >= 0]
    return max(0.0, float((total_variation(feasible, old) - unsampled_worst_case(old, sampled, clip)[0]).max()))


def _zipf_case(seen: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    ranks = np.arange(1, 101)
    return 1 / ranks / (1 / ranks).sum(), ranks <= seen


def _tabular_steps(arms: int) -> FloatArray:
    """(TV, bound) of random steps whose sampled ratios stay within 1 ± 0.2, `(2, steps)`."""
    generator = np.random.default_rng(arms)
    clip, found = 0.2, []
    for _ in range(1000):
        old = softmax(generator.uniform(0, 3) * generator.normal(size=arms))
        sampled = np.zeros(arms, dtype=bool)
        sampled[generator.choice(arms, size=generator.integers(1, arms), p=old)] = True
        weights = np.where(sampled, generator.normal(size=arms), 0.0) * generator.uniform(0, 4)
        # Shrink the step until the ratios of the sampled actions are inside.
        for shrink in 0.7 ** np.arange(40):
            moved = softmax(np.log(old) + shrink * (weights - old * weights.sum()))
            if (np.abs(moved / old - 1)[sampled] <= clip).all() and not sampled.all():
                bound = tabular_bound(old, sampled, clip, float(shrink * weights.sum()))
                found.append((float(total_variation(moved, old)), bound))
                break
    return np.array(found).T


def _tabular_excess(arms: int) -> float:
    drift, bound = _tabular_steps(arms)
    return max(0.0, float((drift - bound).max()))


def _autograd_sensitivity(p: float) -> float:
    ratio = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    new = p * ratio
    (slope,) = torch.autograd.grad((-torch.xlogy(new, new) - torch.xlogy(1 - new, 1 - new)).log(), ratio)
    return slope.item()


register(
    Prediction(
        id="T7",
        name="drift-supremum",
        statement="With every sampled ratio inside its clip interval TV can reach M + ε_low Q - q_min.",
        route="the best of 2^K linear programmes over the feasible set, 12 policies with K = 5",
        unit="total variation",
        tolerance=1e-9,
        predict=lambda: [unsampled_worst_case(*case).total_variation for case in _small_cases()],
        measure=lambda: [_linear_programme(*case) for case in _small_cases()],
    )
)
register(
    Prediction(
        id="T7",
        name="drift-attained",
        statement="The construction with all remaining mass on the rarest unsampled action attains it.",
        route="total variation of that policy, Zipf over 100 actions with the top 1 to 16 sampled",
        unit="total variation",
        tolerance=1e-14,
        predict=lambda: [
            [unsampled_worst_case(*_zipf_case(seen), clip).total_variation for seen in (1, 4, 8, 16)]
            for clip in (0.0, 0.2)
        ],
        measure=lambda: [
            [
                float(total_variation(unsampled_worst_case(*_zipf_case(seen), clip).policy, _zipf_case(seen)[0]))
                for seen in (1, 4, 8, 16)
            ]
            for clip in (0.0, 0.2)
        ],
    )
)
register(
    Prediction(
        id="T7",
        name="drift-not-exceeded",
        statement="No feasible policy drifts further.",
        route="20 000 random feasible policies in each of five cases; largest excess",
        unit="total variation",
        tolerance=1e-14,
        predict=lambda: np.zeros(5),
        measure=lambda: [
            *(_largest_excess(*_zipf_case(seen), 0.2) for seen in (4, 16)),
            *(_largest_excess(*case) for case in _small_cases()[3::4]),
        ],
    )
)
register(
    Prediction(
        id="T7",
        name="tabular-drift",
        statement="One tabular softmax step with in-clip ratios moves at most εQ + M tanh(δ/4).",
        route="1000 random steps for each of K = 3, 10, 100; largest excess over the bound",
        unit="total variation",
        tolerance=1e-14,
        predict=lambda: np.zeros(3),
        measure=lambda: [_tabular_excess(arms) for arms in (3, 10, 100)],
    )
)
register(
    Prediction(
        id="T7",
        name="entropy-sensitivity",
        statement="The entropy of a two-outcome state responds to a ratio with d log H/dr = p log((1-p)/p)/H.",
        route="autograd of log H in the ratio, seven probabilities",
        unit="per unit of ratio",
        scale="relative",
        tolerance=1e-12,
        predict=lambda: entropy_sensitivity([0.05, 0.3, 0.6, 0.8, 0.9, 0.99, 0.999]),
        measure=lambda: [_autograd_sensitivity(p) for p in (0.05, 0.3, 0.6, 0.8, 0.9, 0.99, 0.999)],
    )
)
