"""When did it begin: a test for a change, where it is, and how long until a floor.

The test's statistic is the largest standardised cumulative sum of deviations from the mean, with wild values pulled in,
divided by a long-run standard deviation so that the slow wandering of a training curve does not make a change.
`critical` is what it exceeds in one of a hundred curves without a change; docs/diagnose.md has the rate measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["FALSE_ALARM_RATE", "ChangePoint", "Crossing", "change_point", "critical", "floor_crossing", "statistic"]

FALSE_ALARM_RATE = 0.01
"""Share of curves without a change in which one is found, by design."""

_FEWEST = 12
"""Fewer points have no change that could be told from noise at this rate."""

_LIKELIHOOD = 4.61
"""Distance of twice the logarithm of the likelihood for 90 %, with the bend and the slope both free."""

_MOST = 1024
"""Points looked at; longer curves are averaged to that many."""


@dataclass(frozen=True)
class ChangePoint:
    """A change of a curve.

    Attributes:
        index: first point after it, among the finite ones.
        step: its step.
        low, high: steps between which it lies: every place whose fit is not clearly worse.
        statistic: of the test; larger is surer.
    """

    index: int
    step: float
    low: float
    high: float
    statistic: float


@dataclass(frozen=True)
class Crossing:
    """When a falling curve reaches a floor.

    Attributes:
        floor: the floor.
        low, high: steps from the last point on, 90 % interval; `high` is infinite where the fall may have stopped.
        shape: `linear`, `exponential`, or both where they cannot be told apart.
    """

    floor: float
    low: float
    high: float
    shape: str


def critical(points: int) -> float:
    """What the statistic exceeds in one of a hundred curves of so many points without a change.

    1.63 is the quantile of the largest distance of a Brownian bridge from 0; shorter curves, whose long-run deviation
    is estimated from what a fit left over, need more. The constants were chosen on curves whose neighbours correlate by
    up to 0.6.
    """
    return 1.63 + 3.6 / math.sqrt(points)


def _tamed(values: np.ndarray) -> np.ndarray:
    """The values with the outer fiftieth on each side pulled in: single wild values make no change."""
    low, high = np.quantile(values, [0.02, 0.98])
    return np.clip(values, low, high)


def _long_run_deviation(residuals: np.ndarray, parameters: int) -> float:
    """Standard deviation of a sum over root n, for residuals in which neighbours correlate (first order)."""
    n = len(residuals)
    variance = float((residuals**2).sum()) / max(n - parameters, 1)
    if variance <= 0:
        return 0.0
    rho = float((residuals[1:] * residuals[:-1]).sum() / (residuals**2).sum())
    # Fitting makes neighbours look less alike than they are.
    rho = min(max(rho + (1 + 3 * rho) / n + 2.0 / n, 0.0), 0.97)
    return math.sqrt(variance * (1 + rho) / (1 - rho))


def statistic(values: np.ndarray) -> float:
    """The test's statistic: large where the curve has a change."""
    z = _tamed(values)
    n = len(z)
    rest = min(_after_step(z), _after_ramp(z), key=lambda rest: float((rest**2).sum()))
    deviation = _long_run_deviation(rest, 3)
    path = np.abs(np.cumsum(z - z.mean()))[:-1]
    if deviation <= 0:
        return math.inf if path.max(initial=0.0) > 1e-9 else 0.0
    return float(path.max(initial=0.0) / (deviation * math.sqrt(n)))


def _after_step(z: np.ndarray) -> np.ndarray:
    """What is left of the values after the two means that explain them best."""
    n = len(z)
    edge = max(2, n // 50)
    places = np.arange(edge, n - edge + 1)
    total, before = z.sum(), np.cumsum(z)[places - 1]
    explained = before**2 / places + (total - before) ** 2 / (n - places)
    place = int(places[int(np.argmax(explained))])
    fitted = np.where(np.arange(n) < place, before[place - edge] / place, (total - before[place - edge]) / (n - place))
    return z - fitted


def _after_ramp(z: np.ndarray) -> np.ndarray:
    """What is left after the constant followed by a straight line that explains them best."""
    n = len(z)
    at = np.arange(n, dtype=float)
    places = np.unique(np.linspace(0, n - 3, min(n - 2, 200)).astype(int))
    hinge = np.maximum(at[None, :] - places[:, None], 0.0)
    centred = hinge - hinge.mean(1, keepdims=True)
    slope = (centred @ (z - z.mean())) / (centred**2).sum(1)
    rest = (z - z.mean())[None, :] - slope[:, None] * centred
    return rest[int(np.argmin((rest**2).sum(1)))]


def change_point(steps: np.ndarray, values: np.ndarray) -> ChangePoint | None:
    """The most likely change of a curve, if there is one.

    Args:
        steps: increasing steps.
        values: one value a step; those that are not finite are left out.

    Example:
        >>> at = np.arange(40)
        >>> found = change_point(at, np.where(at < 20, 0.0, 1.0) + 0.01 * np.sin(at * 7.0))
        >>> 18 <= found.step <= 20
        True
    """
    usable = np.isfinite(values)
    steps, values = np.asarray(steps, float)[usable], np.asarray(values, float)[usable]
    if len(values) < _FEWEST or np.ptp(values) == 0:
        return None
    width = -(-len(values) // _MOST)
    if width > 1:
        starts = np.arange(0, len(values), width)
        counts = np.diff(np.append(starts, len(values)))
        steps, values = steps[starts], np.add.reduceat(values, starts) / counts
    found = statistic(values)
    if found <= critical(len(values)):
        return None
    index, low, high = _locate(values)
    return ChangePoint(index * width, float(steps[index]), float(steps[low]), float(steps[high]), found)


def _locate(values: np.ndarray) -> tuple[int, int, int]:
    """Where a change began, and the first and last place it may have begun.

    A line, bent at two places, is fitted by least squares: before the first bend the curve goes on as it did, between
    the bends it changes, after the second it goes on as it likes; a jump is two bends side by side. If the line moved
    a quarter of the way before the first bend already, it began with the curve. Places count as long as their
    likelihood is not clearly worse, for as many independent values as the residuals are worth.
    """
    y = _tamed(values)
    n = len(y)
    at = np.arange(n, dtype=float) / n
    knots = np.unique(np.linspace(0, n - 2, min(n - 1, 64)).astype(int))
    hinge = np.maximum(at[None, :] - at[knots][:, None], 0.0)
    base = np.stack([np.ones(n), at])
    first, second = np.triu_indices(len(knots), 1)
    # The baseline's slope and the first hinge at place 0 are the same function.
    first, second = first[knots[first] > 0], second[knots[first] > 0]
    rows = np.concatenate([base, hinge])
    gram, moments = rows @ rows.T, rows @ y
    chosen = np.stack([np.zeros_like(first), np.ones_like(first), first + 2, second + 2], 1)
    matrices = gram[chosen[:, :, None], chosen[:, None, :]] + 1e-9 * np.eye(4)
    targets = moments[chosen]
    weights = np.linalg.solve(matrices, targets[..., None])[..., 0]
    left = np.maximum((y**2).sum() - (weights * targets).sum(1), 0.0)
    best = int(np.argmin(left))
    fitted = weights[best] @ rows[chosen[best]]
    rest = y - fitted
    rho = float((rest[1:] * rest[:-1]).sum() / max((rest**2).sum(), 1e-300))
    rho = min(max(rho, 0.0), 0.9)
    effective = max(n * (1 - rho) / (1 + rho), 6.0)
    near = first[left <= left[best] * math.exp(_LIKELIHOOD / effective) + 1e-12 * float((y**2).sum())]
    # The first point off the old line is the one after the bend; between two places that were tried it may be any.
    low, high = int(knots[max(near.min() - 1, 0)]) + 1, int(knots[min(near.max() + 1, len(knots) - 1)])
    bend = int(knots[first[best]])
    if abs(fitted[bend] - fitted[0]) >= 0.25 * max(float(np.ptp(fitted)), 1e-300):
        return 0, 0, high
    return min(bend + 1, high), low, high


def floor_crossing(steps: np.ndarray, values: np.ndarray, floor: float) -> Crossing | None:
    """When a falling positive curve reaches a floor, with a 90 % interval over noise and over the shape of the fall.

    Straight lines are fitted to the recent half of the values and of their logarithms; the interval of each slope and
    level allows for correlated neighbours, and both shapes count unless one fits clearly worse.

    Example:
        >>> at = np.arange(30.0)
        >>> found = floor_crossing(at, 1.0 - 0.02 * at + 0.001 * np.cos(5 * at), 0.1)
        >>> bool(found.low < 16 < found.high)
        True
    """
    from scipy.stats import t as student

    usable = np.isfinite(values) & (np.asarray(values) > 0)
    steps, values = np.asarray(steps, float)[usable], np.asarray(values, float)[usable]
    if len(values) < 10 or floor <= 0 or values[-3:].mean() <= floor:
        return None
    recent = max(10, len(values) // 2)
    x, y = steps[-recent:] - steps[-1], values[-recent:]
    fits = []
    for shape, curve, target in (("linear", y, floor), ("exponential", np.log(y), math.log(floor))):
        n = len(x)
        design = np.stack([np.ones(n), x], 1)
        (level, slope), *_ = np.linalg.lstsq(design, curve, rcond=None)
        rest = curve - design @ np.array([level, slope])
        deviation = _long_run_deviation(rest, 2)
        inverse = np.linalg.inv(design.T @ design)
        quantile = float(student.ppf(0.95, max(n - 2, 1)))
        crossing = _fieller(level - target, slope, deviation, inverse, quantile)
        fitted = design @ np.array([level, slope])
        on_values = fitted if shape == "linear" else np.exp(fitted)
        if crossing is not None:
            fits.append((shape, float(((y - on_values) ** 2).sum()), *crossing))
    if not fits:
        return None
    best = min(squares for _, squares, _, _ in fits)
    kept = [fit for fit in fits if fit[1] <= 1.5 * best + 1e-15]
    return Crossing(
        floor,
        min(fit[2] for fit in kept),
        max(fit[3] for fit in kept),
        " or ".join(fit[0] for fit in kept),
    )


def _fieller(
    height: float, slope: float, deviation: float, inverse: np.ndarray, quantile: float
) -> tuple[float, float] | None:
    """Interval of the x at which `height + slope·x` is 0, by Fieller; `None` unless the slope is clearly negative."""
    variance = deviation**2 * inverse
    scaled = quantile**2
    a = slope**2 - scaled * variance[1, 1]
    if slope >= 0 or a <= 0:
        return None
    b = height * slope - scaled * variance[0, 1]
    c = height**2 - scaled * variance[0, 0]
    inside = b**2 - a * c
    if inside < 0:
        return None
    low, high = sorted(((-b - math.sqrt(inside)) / a, (-b + math.sqrt(inside)) / a))
    return (max(float(low), 0.0), max(float(high), 0.0)) if high > 0 else None
