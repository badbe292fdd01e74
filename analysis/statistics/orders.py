"""Claims of the form "in this order"."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike

from analysis.statistics.checks import check_level, condition_values
from analysis.statistics.intervals import RESAMPLES, intervals, p_value
from analysis.statistics.types import MINIMUM_SEEDS, Estimator, Interval, Support
from testbed.errors import ConfigError

__all__ = [
    "monotone_trend",
    "order_p_value",
    "smallest_step",
]


def smallest_step(
    values: ArrayLike,
    direction: Literal["increasing", "decreasing"] = "increasing",
    level: float = 0.90,
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of the smallest of the adjacent paired steps, for claims of the form "in this order".

        steps[j] = ± (values[:, j+1] - values[:, j]),   + if increasing
        low = minⱼ lowⱼ at `level`,   high = minⱼ highⱼ at level 1 - (1 - level)/steps

    The order holds iff the smallest step is positive, so `decide(smallest_step(...), "greater")` judges it.
    The lower bound needs no correction (intersection-union: it can exceed the smallest step only if that
    step's own bound does); the upper one is Bonferroni's, since any of the steps may be the one that fails.

    Args:
        values: `(n, conditions)`, one row per seed, conditions in the claimed order.
        direction: whether values are claimed to increase or decrease along a row.
        level: two-sided confidence level.
        estimator: as in `interval`.
        support: of every step, as in `interval`; `None`: unknown.
        resamples: as in `interval`.
        seed: as in `interval`.

    Raises:
        ConfigError: as `interval`, or fewer than two conditions.

    >>> smallest_step([[0.0, 1.0, 3.0]] * 5).estimate
    1.0
    """
    check_level(level)
    table = condition_values(values, direction)
    steps = np.diff(table, axis=1).T * (1 if direction == "increasing" else -1)
    levels = (level, 1 - (1 - level) / len(steps))
    # Both levels are read off the same resamples, which cost most of the time.
    found = [intervals(step, levels, estimator, support=support, resamples=resamples, seed=seed) for step in steps]
    smallest = min((claimed for claimed, _ in found), key=lambda item: item.estimate)
    # A step without a bound bounds nothing.
    needed = [item.seeds_needed for pair in found for item in pair if item.seeds_needed is not None]
    return Interval(
        smallest.estimate,
        min(-math.inf if math.isnan(claimed.low) else claimed.low for claimed, _ in found),
        min(math.inf if math.isnan(failing.high) else failing.high for _, failing in found),
        level,
        f"smallest of {len(steps)} adjacent steps, {smallest.method}",
        table.shape[0],
        seeds_needed=max(needed, default=None),
    )


def order_p_value(
    values: ArrayLike,
    direction: Literal["increasing", "decreasing"] = "increasing",
    threshold: float = 0.0,
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """p-value of the claim that every adjacent step exceeds the threshold, consistent with `smallest_step`.

    The largest of the steps' own one-sided p-values (intersection-union test).

    Args:
        values: as in `smallest_step`.
        direction: as in `smallest_step`.
        threshold: least size of every step, in the unit of the values.
        estimator: as in `interval`.
        support: of every step, as in `interval`; `None`: unknown.
        resamples: as in `interval`.
        seed: as in `interval`.

    Raises:
        ConfigError: as `smallest_step`.

    >>> order_p_value([[0.0, 1.0, 1.0]] * 5)
    0.5
    """
    table = condition_values(values, direction)
    steps = np.diff(table, axis=1).T * (1 if direction == "increasing" else -1)
    return max(
        p_value(step, "greater", threshold, estimator, support=support, resamples=resamples, seed=seed)
        for step in steps
    )


def monotone_trend(values: ArrayLike, direction: Literal["increasing", "decreasing"] = "increasing") -> float:
    """p-value of Page's L test: no difference between the conditions, against the claimed order.

    It rejects when the order is visible somewhere; use `smallest_step` for the claim that *every* step is in
    order.

    Args:
        values: `(n, conditions)`, one row per seed, at least three conditions in the claimed order.
        direction: whether values are claimed to increase or decrease along a row.

    Raises:
        ConfigError: a value is missing, or there are fewer than 5 seeds or 3 conditions.

    >>> monotone_trend([[1.0, 2.0, 3.0]] * 5) < 0.01
    True
    """
    table = condition_values(values, direction)
    if table.shape[1] < 3 or table.shape[0] < MINIMUM_SEEDS:
        raise ConfigError(
            f"values has shape {table.shape}; Page's test needs at least {MINIMUM_SEEDS} seeds and 3 "
            "conditions. For two conditions pass the differences to p_value"
        )
    ordered = table if direction == "increasing" else table[:, ::-1]
    return float(scipy.stats.page_trend_test(ordered, method="asymptotic").pvalue)
