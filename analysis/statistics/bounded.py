"""Bounds of a mean that know between which two numbers every value lies.

They need no spread in the sample, so they also say what equal values are worth: n equal values leave it open that a
share 1 - α^(1/n) of all seeds lies elsewhere, and elsewhere is at most the end of the support.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from analysis.statistics.types import BoundsByLevel, FloatArray, Support
from testbed.errors import ConfigError

__all__ = ["check_support", "clopper_pearson", "of_equal_values", "share_left_open", "within_support"]


def clopper_pearson(successes: int, seeds: int, level: float) -> tuple[float, float]:
    """The exact binomial interval of a probability.

    >>> low, high = clopper_pearson(0, 5, 0.99)
    >>> low, round(high, 4), round(1 - 0.005 ** (1 / 5), 4)
    (0.0, 0.6534, 0.6534)
    """
    found = scipy.stats.binomtest(successes, seeds).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def share_left_open(seeds: int, level: float) -> float:
    """Largest share of the population that may differ from what all seeds have in common: 1 - α^(1/n)."""
    return -math.expm1(math.log((1 - level) / 2) / seeds)


def of_equal_values(value: float, seeds: int, support: Support, level: float) -> tuple[float, float]:
    """Bounds of the mean where every seed gave the same value.

    >>> low, high = of_equal_values(1.0, 5, (0.0, 1.0), 0.99)
    >>> round(low, 4), high
    (0.3466, 1.0)
    """
    low, high = support
    share = share_left_open(seeds, level)
    return value - share * (value - low), value + share * (high - value)


def within_support(values: FloatArray, support: Support, resamples: int, seed: int) -> BoundsByLevel:
    """Bounds of the mean as a function of the level, for values of which many are equal.

    Where every value is an end of the support this is the exact binomial (Clopper-Pearson) interval, otherwise
    Gaffke's bound,

        high = quantile of Σᵢ wᵢ xᵢ + w₀ · (upper end of the support),   (w₀, …, wₙ) ~ Dirichlet(1, …, 1),

    and mirrored for the lower one: the Bayesian bootstrap with one more value, which sits where it does most harm. It
    is the exact binomial interval for two values at the ends, and `of_equal_values` for equal ones; in between its
    coverage is an observation (`benchmarks/interval_coverage.py`), not a theorem.

    Reference: Gaffke (2005), "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable"; Learned-Miller and Thomas (2019), arXiv:1905.06208.

    Args:
        values: `(n,)`, inside the support.
        support: the two ends.
        resamples: number of draws.
        seed: of their generator.
    """
    low, high = support
    if np.isin(values, support).all():
        successes = int((values == high).sum())

        def exact(level: float) -> tuple[float, float, str]:
            lower, upper = clopper_pearson(successes, values.size, level)
            return low + lower * (high - low), low + upper * (high - low), "exact binomial"

        return exact
    generator = np.random.default_rng(seed)
    # Bounds the memory of the draws (16 MB), not their number.
    batch = max(1, 2_000_000 // (values.size + 1))
    lowest, highest = [], []
    for start in range(0, resamples, batch):
        weights = generator.standard_exponential((min(batch, resamples - start), values.size + 1))
        weights /= weights.sum(1, keepdims=True)
        inside = weights[:, 1:] @ values
        lowest.append(inside + weights[:, 0] * low)
        highest.append(inside + weights[:, 0] * high)
    below, above = np.sort(np.concatenate(lowest)), np.sort(np.concatenate(highest))

    def bounds(level: float) -> tuple[float, float, str]:
        cut = (1 - level) / 2 * (resamples - 1)
        return float(below[math.floor(cut)]), float(above[math.ceil(resamples - 1 - cut)]), "Gaffke's bound"

    return bounds


def check_support(values: FloatArray, support: Support) -> FloatArray:
    """The values, with rounding beyond an end of the support removed.

    Raises:
        ConfigError: the support is no interval, or a value lies outside it.
    """
    low, high = support
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"support is ({low}, {high}); expected two finite numbers, the smaller one first")
    room = 1e-9 * (high - low)
    if values.min() < low - room or values.max() > high + room:
        raise ConfigError(
            f"values reach from {values.min():g} to {values.max():g}, outside the support [{low:g}, {high:g}] that was "
            "declared for them"
        )
    return np.clip(values, low, high)
