"""When something first happened, where some runs end before it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.checks import check_level, seed_values
from analysis.statistics.types import FloatArray, Interval
from testbed.errors import ConfigError

__all__ = [
    "Survival",
    "survival",
]


@dataclass(frozen=True, eq=False)
class Survival:
    """A Kaplan-Meier curve over one event time per seed.

    `times`, `survival`, `low` and `high` are `(J,)`, one entry per distinct observed time, in the unit of the
    event times; the bands are pointwise log-log ones.
    """

    times: FloatArray
    """Distinct event or censoring times, ascending."""
    survival: FloatArray
    """Estimated probability that the event comes later than each time."""
    low: FloatArray
    """Lower pointwise band."""
    high: FloatArray
    """Upper pointwise band."""
    median: Interval
    """Time by which half of the seeds had the event; infinite where the curve never falls to one half."""
    restricted_mean: Interval
    """Mean of min(event time, horizon): the area under the curve up to the horizon."""
    horizon: float
    """Where the restricted mean stops counting."""
    events: int
    """Number of seeds whose event was seen."""


def survival(times: ArrayLike, observed: ArrayLike, *, horizon: float | None = None, level: float = 0.90) -> Survival:
    """Kaplan-Meier estimate of a waiting time when some runs end before the event.

    The median's interval collects the times at which the log-log band of the curve covers one half; the
    restricted mean's is normal with Greenwood's variance Σⱼ (area right of tⱼ)² dⱼ / (nⱼ (nⱼ - dⱼ)), dⱼ
    events among nⱼ seeds at risk. If no event was seen before the horizon there is no variance to estimate
    and its bounds are NaN.

    If every censored run ends at the same horizon, the restricted mean is the plain mean of min(time,
    horizon); a paired comparison of two objectives then passes the differences of those to `judge`.

    Args:
        times: `(n,)`, per seed, when the event came or the run ended; positive.
        observed: `(n,)` bool, True where the event was seen, False where the run ended first.
        horizon: where the restricted mean stops; None: the largest time.
        level: two-sided confidence level.

    Raises:
        ConfigError: fewer than 5 seeds, missing or non-positive times, shapes that differ, or a horizon the
            data do not reach.

    >>> curve = survival([1.0, 2.0, 3.0, 4.0, 4.0], [True, True, True, False, False])
    >>> curve.survival.round(1).tolist(), curve.median.estimate
    ([0.8, 0.6, 0.4, 0.4], 3.0)
    """
    check_level(level)
    seeds = seed_values(times)
    seen = np.asarray(observed)
    if seen.shape != seeds.shape or seen.dtype != np.bool_:
        raise ConfigError(
            f"observed has shape {seen.shape} and dtype {seen.dtype}; expected bool {seeds.shape} as times, "
            "True where the event was seen"
        )
    if (seeds <= 0).any():
        raise ConfigError(f"times holds {seeds.min():g}; expected positive times, count steps from 1")
    end = float(seeds.max()) if horizon is None else float(horizon)
    if not end > 0 or (end > seeds.max() and not seen[seeds == seeds.max()].all()):
        raise ConfigError(
            f"horizon is {end:g} but the last seed was followed to {seeds.max():g} only; "
            f"choose a horizon in (0, {seeds.max():g}]"
        )
    estimate = scipy.stats.ecdf(scipy.stats.CensoredData.right_censored(seeds, ~seen)).sf
    with warnings.catch_warnings():
        # The log-log band does not exist where the curve is 0 or 1; below is said what stands there.
        warnings.filterwarnings("ignore", message="The confidence interval is undefined", category=RuntimeWarning)
        band = estimate.confidence_interval(level, method="log-log")
    moments, curve = np.asarray(estimate.quantiles), np.asarray(estimate.probabilities)
    low = np.where(np.isnan(band.low.probabilities), np.where(curve == 1, 1.0, 0.0), band.low.probabilities)
    high = np.fmin.accumulate(np.where(np.isnan(band.high.probabilities), 1.0, band.high.probabilities))
    median = Interval(
        _first_at_half(moments, curve),
        _first_at_half(moments, low),
        _first_at_half(moments, high),
        level,
        "Kaplan-Meier median",
        seeds.size,
    )
    return Survival(
        moments,
        curve,
        low,
        high,
        median,
        _restricted_mean(seeds, seen, moments, curve, end, level),
        end,
        int(seen.sum()),
    )


def _first_at_half(times: FloatArray, curve: FloatArray) -> float:
    # A tie with one half is decided up to rounding of the product-limit estimate.
    reached = np.flatnonzero(curve <= 0.5 + 1e-12)
    return float(times[reached[0]]) if reached.size else math.inf


def _restricted_mean(
    times: FloatArray,
    observed: NDArray[np.bool_],
    moments: FloatArray,
    curve: FloatArray,
    horizon: float,
    level: float,
) -> Interval:
    inside = moments < horizon
    edges = np.concatenate(([0.0], moments[inside], [horizon]))
    areas = np.diff(edges) * np.concatenate(([1.0], curve[inside]))
    mean = float(areas.sum())
    # Area under the curve to the right of each moment.
    right = mean - np.cumsum(areas)[:-1]
    at_risk = (times[None, :] >= moments[inside][:, None]).sum(1)
    events = ((times[None, :] == moments[inside][:, None]) & observed).sum(1)
    if not events.any():
        return Interval(mean, math.nan, math.nan, level, "no event before the horizon", times.size)
    # Where the last seed at risk has its event nothing is left to the right: 0 · ∞ is 0 there.
    terms = np.where(at_risk > events, right**2 * events / (at_risk * np.maximum(at_risk - events, 1)), 0.0)
    margin = float(scipy.stats.norm.ppf((1 + level) / 2)) * math.sqrt(float(terms.sum()))
    return Interval(
        mean,
        max(0.0, mean - margin),
        min(horizon, mean + margin),
        level,
        "Kaplan-Meier, Greenwood",
        times.size,
    )
