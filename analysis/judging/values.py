"""From one number per seed to a judgement and a p-value, by the claim's statistic, side and threshold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.judging.claim import Statistic
from analysis.judging.estimands import Estimand
from analysis.statistics import (
    MINIMUM_SEEDS,
    Direction,
    Interval,
    Judgement,
    decide,
    judge,
    monotone_trend,
    order_p_value,
    p_value,
    proportion_interval,
    smallest_step,
)

__all__ = [
    "MISSING_SHARE",
    "Judged",
    "is_complete",
    "judge_values",
    "lowest_and_highest",
    "one_sided_p_value",
    "trend_p_value",
]

MISSING_SHARE = 0.01
"""Largest share of seeds without a value with which a verdict is still possible."""
Array = NDArray[np.float64]


class Judged(Protocol):
    """What of a claim decides about numbers."""

    @property
    def estimand(self) -> Estimand:
        """Whose numbers they are."""

    @property
    def direction(self) -> Direction:
        """On which side of the threshold the claim lies."""

    @property
    def threshold(self) -> float:
        """The smallest effect of interest."""

    @property
    def statistic(self) -> Statistic:
        """What the interval is of."""

    @property
    def level(self) -> float:
        """Of the interval."""


def judge_values(claim: Judged, values: Array) -> Judgement:
    """The judgement of one number per seed.

    A seed in which the estimand has no value, such as one that never reached the reward at which entropies are
    compared, cannot be left out in silence. Where at most one seed in a hundred is such, the verdict is given only if
    it is the same with the lowest and with the highest value of any other seed in its place.

    Args:
        claim: whose statistic, direction, threshold and level decide.
        values: `(seeds,)`, or `(seeds, conditions)` for the statistic "smallest step"; NaN: no value.
    """
    missing = _missing(values)
    if len(values) < MINIMUM_SEEDS:
        empty = Interval(math.nan, math.nan, math.nan, claim.level, "none", len(values) - missing)
        # NaN where a seed has no value.
        estimate = float(np.mean(values)) if values.ndim == 1 else math.nan
        return replace(decide(empty, claim.direction, claim.threshold), estimate=estimate)
    if not missing:
        return _judge_complete(claim, values)
    without = f"the estimand has no value in {missing} of {len(values)} seeds"
    if missing > MISSING_SHARE * len(values):
        empty = Interval(math.nan, math.nan, math.nan, claim.level, "none", len(values) - missing)
        judged = decide(empty, claim.direction, claim.threshold)
        return replace(judged, reason=f"{without}, so there is no interval")
    low, high = (_judge_complete(claim, filled) for filled in lowest_and_highest(values))
    judged = low if low.verdict == high.verdict else replace(low, verdict="inconclusive", opposite=False)
    return replace(
        judged,
        low=min(low.low, high.low),
        high=max(low.high, high.high),
        reason=f"{judged.reason}; {without}, and lowest and highest values in their place give "
        f"{'the same' if low.verdict == high.verdict else 'different verdicts'}",
    )


def lowest_and_highest(values: Array) -> tuple[Array, Array]:
    """The values with every missing seed at the lowest, and at the highest, of any other seed."""
    rows = values.reshape(len(values), -1)
    without = np.asarray(np.isnan(rows).any(axis=1))
    # Of an order it is the steps that are judged.
    steps = np.diff(rows[~without], axis=1, prepend=0.0)
    extremes = [np.cumsum(extreme) for extreme in (steps.min(0), steps.max(0))]
    low, high = (np.where(without[:, None], extreme, rows).reshape(values.shape) for extreme in extremes)
    return low, high


def is_complete(values: Array) -> bool:
    """Whether there are seeds enough for an interval and all of them have a value."""
    return len(values) >= MINIMUM_SEEDS and not _missing(values)


def one_sided_p_value(claim: Judged, values: Array) -> float | None:
    """The p-value that agrees with the interval; `None` for a share of seeds, or where there is no interval.

    With missing seeds it is the larger of those with the lowest and with the highest value in their place.
    """
    enough = len(values) >= MINIMUM_SEEDS and _missing(values) <= MISSING_SHARE * len(values)
    if claim.statistic == "proportion" or not enough:
        return None
    complete = lowest_and_highest(values) if _missing(values) else (values,)
    support = claim.estimand.support
    if claim.statistic == "smallest step":
        return max(order_p_value(item, _order(claim), abs(claim.threshold), support=support) for item in complete)
    estimator = claim.statistic
    return max(p_value(item, claim.direction, claim.threshold, estimator, support=support) for item in complete)


def trend_p_value(claim: Judged, values: Array) -> float | None:
    """Page's test of a claim about the order of at least three conditions; `None` for any other."""
    if claim.statistic != "smallest step" or values.shape[-1] < 3 or not is_complete(values):
        return None
    return monotone_trend(values, _order(claim))


def _judge_complete(claim: Judged, values: Array) -> Judgement:
    support = claim.estimand.support
    if claim.statistic == "proportion":
        return decide(proportion_interval(values, claim.level), claim.direction, claim.threshold)
    if claim.statistic == "smallest step":
        bounds = smallest_step(values, _order(claim), claim.level, support=support)
        return decide(bounds, "greater", abs(claim.threshold))
    return judge(values, claim.direction, claim.threshold, claim.level, claim.statistic, support=support)


def _missing(values: Array) -> int:
    return int(np.isnan(values).reshape(len(values), -1).any(1).sum())


def _order(claim: Judged) -> Literal["increasing", "decreasing"]:
    return "increasing" if claim.direction == "greater" else "decreasing"
