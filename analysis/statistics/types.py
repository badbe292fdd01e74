"""The words of a verdict, and what statistics return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MINIMUM_SEEDS",
    "VERDICT_LEVEL",
    "BoundsByLevel",
    "Direction",
    "Estimator",
    "FloatArray",
    "Interval",
    "Judgement",
    "Support",
    "Verdict",
]

Estimator = Literal["mean", "iqm", "median"]

Direction = Literal["greater", "less", "equivalent"]

Verdict = Literal["reproduced", "refuted", "inconclusive"]

FloatArray = NDArray[np.float64]
Support = tuple[float, float]
"""The two numbers between which every value must lie, whatever the seed."""
BoundsByLevel = Callable[[float], tuple[float, float, str]]
"""Lower and upper bound, and how they were made, at a level."""

MINIMUM_SEEDS = 5
"""Fewer seeds than this never give a verdict."""

VERDICT_LEVEL = 0.99
"""Level at which claims are judged: half a percent of error on each side even where the truth is the threshold itself,
and so one percent of false verdicts at most, whatever the truth."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval, all in the unit of the values.

    NaN bounds mean that no interval exists, which `decide` reads as inconclusive.
    """

    estimate: float
    """The point estimate."""
    low: float
    """Lower confidence bound."""
    high: float
    """Upper confidence bound."""
    level: float
    """Two-sided confidence level; each side leaves (1 - level)/2."""
    method: str
    """How the bounds were made, in words."""
    seeds: int
    """Number of seeds behind it."""
    equal: bool = False
    """Whether every seed gave the same value: bounds that exist close in like 1/n then, not like 1/√n."""
    seeds_needed: int | None = None
    """Where a bound is missing, the number of seeds from which values like these have one."""


@dataclass(frozen=True)
class Judgement:
    """What an interval says about a claim.

    `estimate`, `low` and `high` are in the unit of the estimand; bounds are NaN where no interval exists.
    """

    verdict: Verdict
    """Reproduced, refuted or inconclusive."""
    opposite: bool
    """True where the whole interval lies beyond the mirrored threshold: the effect exists, the other way
    round."""
    estimate: float
    """Point estimate of the estimand."""
    low: float
    """Lower confidence bound."""
    high: float
    """Upper confidence bound."""
    level: float
    """Two-sided confidence level of [low, high]; NaN for an identity, which is checked by tolerance."""
    method: str
    """How the bounds were made, in words."""
    seeds: int
    """Number of seeds behind it; 0 for an identity."""
    seeds_needed: int | None
    """Seeds in all that would settle it if it is inconclusive; None where nothing is missing or none
    would."""
    reason: str
    """The verdict in one sentence."""
