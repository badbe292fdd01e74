"""Confidence intervals of a mean, an interquartile mean or a median, and their inversion to p-values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import ArrayLike

from analysis.statistics.bounded import check_support, clopper_pearson, of_equal_values, within_support
from analysis.statistics.checks import check_direction, check_level, seed_values
from analysis.statistics.types import BoundsByLevel, Direction, Estimator, FloatArray, Interval, Support
from testbed.errors import ConfigError

__all__ = [
    "RESAMPLES",
    "bca",
    "bounds_by_level",
    "classical",
    "interquartile_mean",
    "interval",
    "intervals",
    "p_value",
    "point_estimate",
    "studentised",
]

FEW_SEEDS = 20
"""Below this number of seeds a mean is bounded at a fifth of the error, since neither Student's t nor the bootstrap
covers skewed values there; from it on the bootstrap of a median stands alone."""
FEW_SEEDS_SHARE = 0.2
"""The share of the error that is used below `FEW_SEEDS`."""
LEFT_OPEN: Mapping[str, float] = {"mean": 0.01, "iqm": 0.25, "median": 0.5}
"""The share of the population that equal values may leave open, by estimator. A quarter elsewhere leaves the
interquartile mean where it is and half the median; a mean has no such share, and one in a hundred is a choice."""
RESAMPLES = 10_000
"""Bootstrap resamples; the smallest p-value the bootstrap can give is 1/(RESAMPLES + 1)."""


def interquartile_mean(values: ArrayLike, axis: int = -1) -> FloatArray:
    """Mean of what is left after dropping ⌊n/4⌋ values at each end.

    Shorter-tailed than the mean and less wasteful than the median, hence the default where runs are
    heavy-tailed.

    >>> float(interquartile_mean([1.0, 2.0, 3.0, 100.0]))
    2.5
    """
    return np.asarray(scipy.stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis), dtype=np.float64)


def interval(
    values: ArrayLike,
    level: float = 0.90,
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Confidence interval of the mean, interquartile mean or median over seeds.

    *Of the mean.* On each side the wider of Student's t and the studentised bootstrap (bootstrap-t),

        [θ - q(1-α)·s, θ - q(α)·s],   q: quantiles of (θ* - θ)/s* over the resamples,   s: standard error.

    A resample without spread has an infinite quotient: where more than α of them do, that side has no bound. Below 20
    seeds both are made at a fifth of α. Where the values are 0 and 1, the exact binomial (Clopper-Pearson) interval
    takes the bootstrap's place.

    *Of the interquartile mean and the median.* The BCa bootstrap, for the former widened to Tukey and McLaughlin's t on
    the winsorised values, for the latter below 20 seeds to the exact order-statistic interval. Where BCa is undefined
    the percentile bootstrap of the same resamples stands in for it.

    *With a support.* Bounds never leave it. A mean of values that are its two ends gets the exact binomial interval,
    and one of values more than half of which are equal gets `bounded.within_support`, which needs no spread.

    *Equal values*, up to rounding, have no spread to learn from. Within a support the share 1 - α^(1/n) of the
    population that they leave open bounds the mean. Without one the interval is that value where the open share is at
    most 1 % for the mean, 25 % for the interquartile mean, 50 % for the median (at level 99 % from 528, 19 and 8 seeds
    on), and there is none otherwise.

    Resamples are drawn from a generator of their own, so the same values always give the same interval. How far it can
    be trusted is simulated by `benchmarks/interval_coverage.py`; docs/decisions.md has its figures.

    Args:
        values: `(n,)`, one number per seed; differences for a paired comparison.
        level: two-sided confidence level in (0, 1).
        estimator: what is estimated.
        support: the two numbers between which every value lies whatever the seed, such as (0, 1) of a share, or
            (-1, 1) of the difference of two; `None`: unknown.
        resamples: number of bootstrap resamples.
        seed: of the resampling generator.

    Raises:
        ConfigError: `values` is not one-dimensional, holds NaN or infinity, or has fewer than 5 entries;
            `level`, `estimator` or `resamples` is out of range; `support` is no interval, or does not hold the values.

    >>> bounds = interval([1.0] * 5, 0.99)
    >>> bounds.estimate, bounds.low, bounds.seeds_needed
    (1.0, nan, 528)
    >>> round(interval([1.0] * 5, 0.99, support=(0.0, 1.0)).low, 3)
    0.347
    """
    return intervals(values, (level,), estimator, support=support, resamples=resamples, seed=seed)[0]


def intervals(
    values: ArrayLike,
    levels: Sequence[float],
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """`interval` at several levels, from one set of resamples."""
    for level in levels:
        check_level(level)
    seeds = _supported(seed_values(values), support)
    bounds = bounds_by_level(seeds, estimator, resamples, seed, support=support)
    estimate, equal = point_estimate(seeds, estimator), _equal(seeds)
    made = []
    for level in levels:
        low, high, method = bounds(level)
        needed = None if math.isfinite(low) and math.isfinite(high) else _seeds_for_bounds(seeds, estimator, level)
        made.append(Interval(estimate, low, high, level, method, seeds.size, equal, needed))
    return made


def p_value(
    values: ArrayLike,
    direction: Direction,
    threshold: float = 0.0,
    estimator: Estimator = "mean",
    *,
    support: Support | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """One-sided p-value of the claim, made by inverting `interval`.

    It is the smallest α at which `interval(values, level=1 - 2α)` lies wholly beyond the threshold, so a
    verdict from the interval and a decision from this number can never disagree. For "equivalent" it is the
    larger of the two one-sided values (TOST). It is never below 1/(resamples + 1).

    Args:
        values: `(n,)`, one number per seed.
        direction: the claim: estimand "greater" or "less" than `threshold`, or "equivalent" to 0 within it.
        threshold: in the unit of the values; positive for "equivalent".
        estimator: as in `interval`.
        support: as in `interval`.
        resamples: as in `interval`.
        seed: as in `interval`.

    Raises:
        ConfigError: as `interval`, or the direction or threshold makes no sense.

    >>> p_value([0.0] * 5, "greater")
    0.5
    """
    check_direction(direction, threshold)
    seeds = _supported(seed_values(values), support)
    bounds = bounds_by_level(seeds, estimator, resamples, seed, support=support)
    floor = 1 / (resamples + 1)
    if direction == "greater":
        return _tail(bounds, threshold, floor, above=True)
    if direction == "less":
        return _tail(bounds, threshold, floor, above=False)
    return max(
        _tail(bounds, -threshold, floor, above=True),
        _tail(bounds, threshold, floor, above=False),
    )


_STATISTICS: dict[str, Callable[..., FloatArray]] = {
    "mean": np.mean,
    "iqm": interquartile_mean,
    "median": np.median,
}


def point_estimate(values: FloatArray, estimator: Estimator) -> float:
    """The mean, interquartile mean or median of `(n,)`."""
    if estimator not in _STATISTICS:
        raise ConfigError(f"estimator is {estimator!r}; expected one of {', '.join(map(repr, _STATISTICS))}")
    # A mean of equal numbers can differ from them in the last digit.
    return float(values[0]) if np.ptp(values) == 0 else float(_STATISTICS[estimator](values, axis=-1))


def bounds_by_level(
    values: FloatArray, estimator: Estimator, resamples: int, seed: int, *, support: Support | None = None
) -> BoundsByLevel:
    """Interval bounds as a function of the level, over one set of resamples; see `interval`."""
    if resamples < 1000:
        raise ConfigError(f"resamples is {resamples}; expected at least 1000, below that the tails are noise")
    estimate = point_estimate(values, estimator)
    if _equal(values):
        return _equal_bounds(estimate, values.size, estimator, support)
    if estimator != "mean":
        found = _of_robust_estimators(values, estimator, resamples, seed)
    elif support is not None and _mostly_equal(values, support):
        return within_support(values, support, resamples, seed)
    else:
        found = _of_the_mean(values, resamples, seed)
    return found if support is None else _inside(found, support)


def _supported(values: FloatArray, support: Support | None) -> FloatArray:
    return values if support is None else check_support(values, support)


def _equal(values: FloatArray) -> bool:
    # Sums of the same numbers in another order differ in the last digits.
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _mostly_equal(values: FloatArray, support: Support) -> bool:
    """Whether one value has more than half of the seeds, or every value is an end of the support."""
    low, high = support
    _, counts = np.unique(np.round((values - low) / (high - low), 12), return_counts=True)
    return bool(counts.max() > values.size / 2 or np.isin(values, support).all())


def _equal_bounds(value: float, seeds: int, estimator: Estimator, support: Support | None) -> BoundsByLevel:
    def bounds(level: float) -> tuple[float, float, str]:
        # Not of a median or an interquartile mean, which a small share elsewhere does not move.
        if support is not None and estimator == "mean":
            return *of_equal_values(value, seeds, support, level), "all values equal, within the support"
        if seeds < _seeds_for_equal_values(estimator, level):
            return math.nan, math.nan, "all values equal"
        return value, value, "all values equal"

    return bounds


def _seeds_for_equal_values(estimator: Estimator, level: float) -> int:
    """Equal seeds that leave open no more than the share of `LEFT_OPEN`: (1 - share)^n ≤ α."""
    # A hair less than the quotient: at the level of a p-value it is a whole number that rounding may have exceeded.
    return math.ceil(math.log((1 - level) / 2) / math.log1p(-LEFT_OPEN[estimator]) - 1e-9)


def _seeds_for_bounds(values: FloatArray, estimator: Estimator, level: float) -> int:
    """Seeds from which values of the same shares have two bounds."""
    if _equal(values) or estimator == "median":
        return _seeds_for_equal_values(estimator, level)
    # The bootstrap leaves a side open where more than α of its resamples, Σ shareⁿ, are one value n times.
    _, counts = np.unique(values, return_counts=True)
    share, most = counts.max() / values.size, int((counts == counts.max()).sum())
    few, many = (
        math.ceil(math.log(error * (1 - level) / 2 / most) / math.log(share)) for error in (FEW_SEEDS_SHARE, 1.0)
    )
    return max(values.size + 1, few if few < FEW_SEEDS else max(FEW_SEEDS, many))


def _inside(found: BoundsByLevel, support: Support) -> BoundsByLevel:
    def bounds(level: float) -> tuple[float, float, str]:
        low, high, method = found(level)
        return max(low, support[0]), min(high, support[1]), method

    return bounds


def _of_the_mean(values: FloatArray, resamples: int, seed: int) -> BoundsByLevel:
    if np.isin(values, (0.0, 1.0)).all():
        successes = int(values.sum())

        def exact(level: float) -> tuple[float, float, str]:
            return *clopper_pearson(successes, values.size, level), "exact binomial"

        return _wider(values, "mean", exact)
    bounds = _wider(values, "mean", studentised(values, "mean", resamples, seed))
    if values.size >= FEW_SEEDS:
        return bounds
    return lambda level: bounds(1 - FEW_SEEDS_SHARE * (1 - level))


def _of_robust_estimators(values: FloatArray, estimator: Estimator, resamples: int, seed: int) -> BoundsByLevel:
    bootstrap = bca(values, estimator, resamples, seed)
    return bootstrap if estimator == "median" and values.size >= FEW_SEEDS else _wider(values, estimator, bootstrap)


def _wider(values: FloatArray, estimator: Estimator, found: BoundsByLevel) -> BoundsByLevel:
    def bounds(level: float) -> tuple[float, float, str]:
        low, high, label = found(level)
        other_low, other_high, other = classical(values, estimator, level)
        return min(low, other_low), max(high, other_high), f"wider of {other} and {label}"

    return bounds


def studentised(values: FloatArray, estimator: Estimator, resamples: int, seed: int) -> BoundsByLevel:
    """Bounds of the bootstrap-t; see `interval`."""
    generator = np.random.default_rng(seed)
    estimate, error = point_estimate(values, estimator), float(standard_error(values, estimator))
    # Bounds the memory of the resamples (16 MB), not their number.
    batch = max(1, 2_000_000 // values.size)
    quotients = []
    for start in range(0, resamples, batch):
        rows = min(batch, resamples - start)
        drawn = values[generator.integers(values.size, size=(rows, values.size))]
        moved, errors = _STATISTICS[estimator](drawn, axis=-1) - estimate, standard_error(drawn, estimator)
        with np.errstate(divide="ignore", invalid="ignore"):
            # 0/0: a resample without spread that sits on the estimate is no deviation at all.
            quotients.append(np.where(moved == 0, 0.0, moved / errors))
    ordered = np.sort(np.concatenate(quotients))

    def bounds(level: float) -> tuple[float, float, str]:
        # The outer of the two neighbouring order statistics, which is defined where the next one is infinite.
        last = ordered.size - 1
        cut = (1 - level) / 2 * last
        below, above = ordered[math.floor(cut)], ordered[math.ceil(last - cut)]
        return estimate - float(above) * error, estimate - float(below) * error, "studentised bootstrap"

    return bounds


def standard_error(values: FloatArray, estimator: Estimator) -> FloatArray:
    """Of the mean, or Tukey and McLaughlin's of the interquartile mean, over the last dimension."""
    seeds = values.shape[-1]
    if estimator == "mean":
        return np.asarray(values.std(-1, ddof=1) / math.sqrt(seeds))
    cut = seeds // 4
    kept = seeds - 2 * cut
    ordered = np.sort(values, axis=-1)
    winsorised = np.clip(ordered, ordered[..., cut, None], ordered[..., seeds - 1 - cut, None])
    return np.asarray(np.sqrt((seeds - 1) * winsorised.var(-1, ddof=1) / (kept * (kept - 1))))


def bca(values: FloatArray, estimator: Estimator, resamples: int, seed: int) -> BoundsByLevel:
    """Bounds of the bias-corrected and accelerated bootstrap, or of the percentile one where that is undefined."""
    arguments = {
        "statistic": _STATISTICS[estimator],
        "vectorized": True,
        "axis": -1,
        "batch": max(1, 2_000_000 // values.size),
    }
    drawn = scipy.stats.bootstrap(
        (values,), n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed), **arguments
    )

    def percentiles(level: float, method: str) -> tuple[float, float]:
        # An undefined BCa interval is NaN, which is handled below; its warnings say no more.
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            result = scipy.stats.bootstrap(
                (values,),
                n_resamples=0,
                bootstrap_result=drawn,
                confidence_level=level,
                method=method,
                **arguments,
            ).confidence_interval
        return float(result.low), float(result.high)

    def bounds(level: float) -> tuple[float, float, str]:
        low, high = percentiles(level, "BCa")
        if math.isfinite(low) and math.isfinite(high):
            return low, high, "BCa bootstrap"
        return *percentiles(level, "percentile"), "percentile bootstrap"

    return bounds


def classical(values: FloatArray, estimator: Estimator, level: float) -> tuple[float, float, str]:
    """Bounds without resampling, with their name: Student's t, winsorised t, or order statistics."""
    seeds = values.size
    if estimator == "median":
        bounds = scipy.stats.quantile_test(values, p=0.5).confidence_interval(level)
        # NaN: these seeds cannot bound the median at this level, so nothing is ruled out on that side.
        low = -math.inf if math.isnan(bounds.low) else float(bounds.low)
        high = math.inf if math.isnan(bounds.high) else float(bounds.high)
        return low, high, "order statistics"
    kept = seeds if estimator == "mean" else seeds - 2 * (seeds // 4)
    margin = float(scipy.stats.t.ppf((1 + level) / 2, kept - 1)) * float(standard_error(values, estimator))
    centre = point_estimate(values, estimator)
    return centre - margin, centre + margin, "t" if estimator == "mean" else "winsorised t"


def _tail(bounds: BoundsByLevel, threshold: float, floor: float, *, above: bool) -> float:
    """Smallest α at which the one-sided bound at level 1 - 2α clears the threshold."""

    def clears(alpha: float, above: bool) -> bool:
        # A level of exactly 0 is not a level; the bounds at 1e-9 are those of the centre.
        low, high, _ = bounds(max(1 - 2 * alpha, 1e-9))
        return low > threshold if above else high < threshold

    if clears(0.5, not above):
        return 1 - _tail(bounds, threshold, floor, above=not above)
    if not clears(0.5, above):
        return 0.5
    if clears(floor, above):
        return floor
    fails, holds = floor, 0.5
    while holds - fails > 1e-6 * holds:
        middle = math.sqrt(fails * holds)
        fails, holds = (fails, middle) if clears(middle, above) else (middle, holds)
    return holds
