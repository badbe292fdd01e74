"""Shares of seeds with a yes-or-no outcome."""

from __future__ import annotations

from numpy.typing import ArrayLike

from analysis.statistics.bounded import clopper_pearson
from analysis.statistics.checks import check_level, seed_values
from analysis.statistics.types import Interval
from testbed.errors import ConfigError

__all__ = [
    "probability_of_improvement",
    "proportion_interval",
]


def proportion_interval(outcomes: ArrayLike, level: float = 0.90) -> Interval:
    """Exact binomial (Clopper-Pearson) interval of the share of seeds with a yes-or-no outcome, such as "collapsed".

    Args:
        outcomes: `(n,)`, 0 or 1 (or bool) per seed.
        level: two-sided confidence level.

    Raises:
        ConfigError: an outcome is missing or neither 0 nor 1.

    >>> proportion_interval([1, 0, 0, 0, 1]).estimate
    0.4
    """
    check_level(level)
    seeds = seed_values(outcomes, minimum=1)
    odd = seeds[(seeds != 0) & (seeds != 1)]
    if odd.size:
        raise ConfigError(f"outcomes holds {odd[0]:g}; expected 0 or 1 for every seed. Compare with a threshold first")
    return _share(int(seeds.sum()), int(seeds.sum()), seeds.size, level, "exact binomial")


def probability_of_improvement(differences: ArrayLike, level: float = 0.90) -> Interval:
    """Probability that a paired seed improves, P(d > 0) + ½ P(d = 0), with an exact binomial interval.

    With ties the lower bound counts them as failures and the upper bound as improvements, so ties only widen
    it.

    Args:
        differences: `(n,)`, treatment minus baseline, one per shared seed.
        level: two-sided confidence level.

    >>> probability_of_improvement([1.0, 2.0, 0.0, -1.0]).estimate
    0.625
    """
    check_level(level)
    seeds = seed_values(differences, minimum=1)
    return _share(int((seeds > 0).sum()), int((seeds >= 0).sum()), seeds.size, level, "exact binomial on signs")


def _share(fewest: int, most: int, seeds: int, level: float, method: str) -> Interval:
    low, _ = clopper_pearson(fewest, seeds, level)
    _, high = clopper_pearson(most, seeds, level)
    return Interval((fewest + most) / (2 * seeds), low, high, level, method, seeds, equal=fewest == most in (0, seeds))
