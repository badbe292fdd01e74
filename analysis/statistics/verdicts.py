"""From an interval to a verdict: the one place."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from analysis.statistics.bounded import share_left_open
from analysis.statistics.checks import check_direction, check_level, in_words, seed_values
from analysis.statistics.intervals import RESAMPLES, interval, point_estimate
from analysis.statistics.types import MINIMUM_SEEDS, Direction, Estimator, Interval, Judgement, Support, Verdict
from testbed.errors import ConfigError

__all__ = [
    "decide",
    "judge",
    "judge_identity",
    "seeds_needed",
]


def judge(
    values: ArrayLike,
    direction: Direction,
    threshold: float = 0.0,
    level: float = 0.90,
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judgement:
    """Verdict on a claim from one number per seed: `decide(interval(values, ...), direction, threshold)`.

    With fewer than 5 seeds the verdict is inconclusive, without bounds, and says how many seeds are missing. So it is
    where the values cannot tell: equal ones of unknown support, or those with a side that has no bound.

    Args:
        values: `(n,)`, the estimand of each seed.
        direction: see `decide`.
        threshold: see `decide`.
        level: two-sided confidence level.
        estimator: as in `interval`.
        support: as in `interval`.
        resamples: as in `interval`.
        seed: as in `interval`.

    Raises:
        ConfigError: as `interval`, except that few seeds are a verdict rather than an error.

    >>> judge([1.0, 1.1, 0.9, 1.2, 1.0, 0.8], "greater", 0.5).verdict
    'reproduced'
    >>> judge([1.0, 1.1], "greater").reason
    '2 seeds give no interval; a verdict needs at least 5'
    >>> judge([1.0] * 5, "greater", 0.95, 0.99).reason
    '5 seeds give no interval (all values equal); about 528 seeds would'
    >>> judge([1.0] * 5, "greater", 0.95, 0.99, support=(0.0, 1.0)).seeds_needed
    104
    """
    check_level(level)
    check_direction(direction, threshold)
    seeds = seed_values(values, minimum=1)
    if seeds.size < MINIMUM_SEEDS:
        missing = Interval(point_estimate(seeds, estimator), math.nan, math.nan, level, "none", seeds.size)
        return decide(missing, direction, threshold)
    bounds = interval(seeds, level, estimator, support=support, resamples=resamples, seed=seed)
    return decide(bounds, direction, threshold)


def decide(bounds: Interval, direction: Direction, threshold: float = 0.0) -> Judgement:
    """The verdict rule, from any interval [low, high].

    =============  ========================  =======================  ========================
    direction      reproduced                refuted                  opposite
    =============  ========================  =======================  ========================
    "greater"      low > threshold           high < threshold         high < -|threshold|
    "less"         high < threshold          low > threshold          low > |threshold|
    "equivalent"   -threshold < low and      high < -threshold or     never
                   high < threshold          low > threshold
    =============  ========================  =======================  ========================

    Everything else is inconclusive, and so is anything from fewer than 5 seeds or with missing bounds.

    Args:
        bounds: the interval of the estimand.
        direction: what the claim says about the estimand.
        threshold: signed, in the estimand's unit; for "equivalent" the positive half-width δ of (-δ, δ).

    Raises:
        ConfigError: an unknown direction, or a threshold that is not finite or not positive where it must be.

    >>> decide(Interval(0.5, 0.2, 0.8, 0.9, "t", 20), "greater", 0.1).verdict
    'reproduced'
    >>> decide(Interval(-0.5, -0.8, -0.2, 0.9, "t", 20), "greater", 0.1).opposite
    True
    """
    check_direction(direction, threshold)
    low, high = bounds.low, bounds.high
    if bounds.seeds < MINIMUM_SEEDS:
        reason = f"{in_words(bounds.seeds)} give no interval; a verdict needs at least {MINIMUM_SEEDS}"
        return _judgement("inconclusive", False, bounds, MINIMUM_SEEDS, reason)
    if math.isnan(low) or math.isnan(high):
        hint = "" if bounds.seeds_needed is None else f"; about {bounds.seeds_needed} seeds would"
        reason = f"{in_words(bounds.seeds)} give no interval ({bounds.method}){hint}"
        return _judgement("inconclusive", False, bounds, bounds.seeds_needed, reason)
    opposite = False
    if direction == "greater":
        holds, fails, opposite = low > threshold, high < threshold, high < -abs(threshold)
        inside, outside = f"above {threshold:g}", f"below {threshold:g}"
    elif direction == "less":
        holds, fails, opposite = high < threshold, low > threshold, low > abs(threshold)
        inside, outside = f"below {threshold:g}", f"above {threshold:g}"
    else:
        holds, fails = -threshold < low and high < threshold, high < -threshold or low > threshold
        inside, outside = f"inside ±{threshold:g}", f"outside ±{threshold:g}"
    start = f"the {100 * bounds.level:g} % interval [{low:.4g}, {high:.4g}] of {in_words(bounds.seeds)}"
    if holds:
        return _judgement("reproduced", opposite, bounds, None, f"{start} lies wholly {inside}")
    if fails:
        return _judgement("refuted", opposite, bounds, None, f"{start} lies wholly {outside}")
    needed = _seeds_to_settle(bounds, direction, threshold)
    if needed is None:
        hint = "no number of seeds would settle it"
    else:
        hint = f"about {needed} seeds would {'settle' if math.isfinite(low) and math.isfinite(high) else 'bound'} it"
    return _judgement("inconclusive", opposite, bounds, needed, f"{start} is not wholly {inside} or {outside}; {hint}")


def seeds_needed(
    values: ArrayLike,
    direction: Direction,
    threshold: float = 0.0,
    level: float = 0.90,
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
) -> int | None:
    """Seeds in all at which an interval of this spread would settle the claim one way or the other.

        n' = ⌈n · (w / g)²⌉ + 1,   w: from the estimate to the bound on the threshold's side,   g: to the
        threshold

    because a bound approaches its estimate like 1/√n while the estimate is taken to stay where it is. For
    "equivalent" with the estimate inside (-δ, δ) the larger of the two sides counts. Bounds of equal values approach
    it like the share 1 - α^(1/n) that they leave open, and where a bound is missing it is the number that has one. From
    fewer than 20 seeds, whose bounds are wider, it is too large rather than too small. Never below 5, and None where
    the estimate sits on the threshold.

    Args:
        values: `(n,)`, at least 5 seeds.
        direction: see `decide`.
        threshold: see `decide`.
        level: two-sided confidence level.
        estimator: as in `interval`.
        support: as in `interval`.

    >>> seeds_needed([1.0, 1.2, 0.8, 1.1, 0.9], "greater", 1.0) is None
    True
    """
    check_direction(direction, threshold)
    return _seeds_to_settle(interval(values, level, estimator, support=support), direction, threshold)


def judge_identity(error: float, tolerance: float) -> Judgement:
    """Verdict on an exact statement: reproduced iff the error is at most the tolerance, else refuted.

    An error that is NaN or infinite refutes it.

    Args:
        error: largest deviation found, non-negative, in the unit of the statement.
        tolerance: largest deviation allowed, non-negative and finite.

    Raises:
        ConfigError: the tolerance is negative or not finite, or the error is negative.

    >>> judge_identity(1e-15, 1e-9).verdict, judge_identity(float("nan"), 1e-9).verdict
    ('reproduced', 'refuted')
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"tolerance is {tolerance}; expected a finite number that is not negative")
    if error < 0:
        raise ConfigError(f"error is {error}; expected the absolute value of a deviation")
    holds = error <= tolerance
    return Judgement(
        verdict="reproduced" if holds else "refuted",
        opposite=False,
        estimate=error,
        low=error,
        high=error,
        level=math.nan,
        method="tolerance",
        seeds=0,
        seeds_needed=None,
        reason=f"error {error:.3g} is {'within' if holds else 'not within'} the tolerance {tolerance:.3g}",
    )


def _judgement(verdict: Verdict, opposite: bool, bounds: Interval, needed: int | None, reason: str) -> Judgement:
    return Judgement(
        verdict=verdict,
        opposite=opposite,
        estimate=bounds.estimate,
        low=bounds.low,
        high=bounds.high,
        level=bounds.level,
        method=bounds.method,
        seeds=bounds.seeds,
        seeds_needed=needed,
        reason=reason,
    )


def _seeds_to_settle(bounds: Interval, direction: Direction, threshold: float) -> int | None:
    estimate, low, high = bounds.estimate, bounds.low, bounds.high
    if direction != "equivalent":
        sides = [(threshold, estimate - low if estimate > threshold else high - estimate)]
    elif abs(estimate) < threshold:
        sides = [(-threshold, estimate - low), (threshold, high - estimate)]
    elif estimate > 0:
        sides = [(threshold, estimate - low)]
    else:
        sides = [(-threshold, high - estimate)]
    needed = MINIMUM_SEEDS
    for limit, width in sides:
        gap = abs(estimate - limit)
        if gap == 0:
            return None
        if not math.isfinite(width):
            # The bound itself comes first; whether it settles the claim is seen then.
            return bounds.seeds_needed
        needed = max(needed, _seeds_to_reach(gap, width, bounds))
    return needed


def _seeds_to_reach(gap: float, width: float, bounds: Interval) -> int:
    """Seeds at which a bound as far as `width` from its estimate has come within `gap`."""
    if not bounds.equal:
        return math.ceil(bounds.seeds * (width / gap) ** 2) + 1
    # The width is the open share times the distance to the end of the support.
    share = gap / width * share_left_open(bounds.seeds, bounds.level)
    return MINIMUM_SEEDS if share >= 1 else math.ceil(math.log((1 - bounds.level) / 2) / math.log1p(-share))
