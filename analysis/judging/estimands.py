"""Per-seed numbers out of trajectories, each with a description that the report and the protocol print."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import Support
from analysis.trajectories import Trajectories

__all__ = [
    "Estimand",
    "Event",
    "Measure",
    "at_matched",
    "average",
    "between",
    "contrast",
    "difference",
    "drawdown",
    "exceeds",
    "final",
    "in_order",
    "largest",
    "quotient",
    "relative_change",
    "roughness",
    "slope",
    "time_to",
    "value_of",
    "within",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """When something first happened in each run, or that it had not when the run ended.

    Attributes:
        description: the event, in words.
        read: from an arm's trajectories to its times `(seeds,)` and whether the event was seen, `(seeds,)`.
    """

    description: str
    read: Callable[[Trajectories], tuple[Array, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Measure:
    """One number per seed of one arm.

    Attributes:
        description: what is read, in words.
        read: from the arm's trajectories to `(seeds,)`.
        event: of a waiting time, the event that is waited for.
    """

    description: str
    read: Callable[[Trajectories], Array]
    event: Event | None = None


@dataclass(frozen=True)
class Estimand:
    """One number per seed of a whole experiment.

    Attributes:
        description: what is computed, in words.
        compute: from the arms' trajectories to `(seeds,)`.
        arms: the arms it reads.
        event: of a comparison of waiting times, the event that is waited for.
        alike: whether the same is measured of every arm, so that an arm against itself shows no difference.
        support: the two numbers between which it lies on every seed, or each of its steps does; `None`: unknown.
    """

    description: str
    compute: Callable[[Mapping[str, Trajectories]], Array]
    arms: frozenset[str]
    event: Event | None = None
    alike: bool = True
    support: Support | None = None


def final(metric: str) -> Measure:
    """The metric after the last step."""
    return Measure(f"{metric} after the last step", lambda run: run[metric][-1])


def average(metric: str) -> Measure:
    """Mean of the metric over all steps after the first rollout; steps without data do not count."""
    return Measure(f"mean of {metric} over the steps", lambda run: _over_steps(np.nanmean, run[metric][1:]))


def largest(metric: str) -> Measure:
    """Largest value of the metric over the steps."""
    return Measure(f"largest {metric} of any step", lambda run: _over_steps(np.nanmax, run[metric][1:]))


def drawdown(metric: str) -> Measure:
    """How far the metric ever falls below the largest value it had before; 0 where it never falls."""
    return Measure(
        f"largest fall of {metric} below its best so far",
        lambda run: (np.maximum.accumulate(run[metric], axis=0) - run[metric]).max(0),
    )


def rise(metric: str) -> Measure:
    """How far the metric ever rises above its value before training; 0 where it never does."""
    return Measure(f"largest rise of {metric} above its start", lambda run: (run[metric] - run[metric][0]).max(0))


def roughness(metric: str) -> Measure:
    """Standard deviation of the metric's second difference over the steps: a straight line has none."""
    return Measure(
        f"standard deviation of the second difference of {metric} over the steps",
        lambda run: np.diff(run[metric][1:], n=2, axis=0).std(0),
    )


def relative_change(metric: str, quantile: float | None = None) -> Measure:
    """|log(next/this)| of a positive metric from step to step: its mean, or a quantile, over the steps."""

    def read(run: Trajectories) -> Array:
        changes = np.abs(np.diff(np.log(run[metric][1:]), axis=0))
        return changes.mean(0) if quantile is None else np.quantile(changes, quantile, axis=0)

    of = "mean" if quantile is None else f"{quantile:g} quantile"
    return Measure(f"{of} of |log ratio of {metric} between successive steps|", read)


def at_matched(metric: str, matched: str, level: float) -> Measure:
    """The metric where `matched` first reaches `level`, interpolated between steps; NaN in a run that never does.

    Comparing entropies at equal reward, or at equal cumulative divergence, separates what an objective does from how
    fast it learns.
    """

    def read(run: Trajectories) -> Array:
        values, reference = run[metric], run[matched]
        reached = reference >= level
        index = reached.argmax(0)
        columns = np.arange(values.shape[1])
        before = np.maximum(index - 1, 0)
        low, high = reference[before, columns], reference[index, columns]
        share = np.where(high > low, (level - low) / np.where(high > low, high - low, 1.0), 1.0)
        found = values[before, columns] + np.clip(share, 0, 1) * (values[index, columns] - values[before, columns])
        return np.where(reached.any(0), found, np.nan)

    return Measure(f"{metric} where {matched} first reaches {level:g}", read)


def quotient(numerator: Measure, denominator: Measure) -> Measure:
    """One measure of an arm divided by another of the same arm, seed by seed."""
    return Measure(
        f"({numerator.description}) / ({denominator.description})",
        lambda run: numerator.read(run) / denominator.read(run),
    )


def slope(metric: str) -> Measure:
    """Least-squares slope of the metric over the steps after the first rollout, per step."""
    return Measure(f"slope of {metric} over the steps", lambda run: _slopes(run.steps[1:], run[metric][1:]))


def time_to(metric: str, level: float, *, falling: bool = False) -> Measure:
    """Steps until the metric first reaches `level`, or the run's length where it never does.

    Restricting every run to the same length makes it the restricted mean time to the event, which censoring at the
    end of the runs cannot bias: it is the area under the Kaplan-Meier curve.
    """

    def times(run: Trajectories) -> tuple[Array, NDArray[np.bool_]]:
        reached = run[metric] <= level if falling else run[metric] >= level
        first = run.steps[reached.argmax(0)].astype(np.float64)
        seen = np.asarray(reached.any(0))
        return np.where(seen, first, float(run.steps[-1])), seen

    what = f"{metric} first {'falls to' if falling else 'reaches'} {level:g}"
    return Measure(
        f"steps until {what}, at most the run's length", lambda run: times(run)[0], Event(f"until {what}", times)
    )


def exceeds(measure: Measure, level: float) -> Measure:
    """1 where the measure is at least `level`, else 0: a yes-or-no outcome per seed, for the statistic "proportion"."""
    return Measure(
        f"whether the {measure.description} is at least {level:g}",
        lambda run: (measure.read(run) >= level).astype(np.float64),
    )


def in_order(measure: Measure, arms: Sequence[str]) -> Estimand:
    """The measure of each arm, one column an arm in the claimed order, for the statistic "smallest step"."""
    return Estimand(
        f"{measure.description}, in the order {', '.join(f'[{arm}]' for arm in arms)}",
        lambda runs: np.stack([measure.read(runs[arm]) for arm in arms], axis=-1),
        frozenset(arms),
    )


def value_of(measure: Measure, arm: str) -> Estimand:
    """The measure of one arm."""
    return Estimand(f"[{arm}] {measure.description}", lambda runs: measure.read(runs[arm]), frozenset({arm}))


def difference(measure: Measure, of: str, minus: str) -> Estimand:
    """The measure of one arm minus that of another, seed by seed."""
    return contrast(measure, of, minus, times=1.0)


def contrast(measure: Measure, of: str, minus: str, times: float) -> Estimand:
    """The measure of one arm minus a multiple of another's: above 0 where the ratio of the two exceeds `times`.

    Unlike the ratio itself it has a mean when the denominator can be 0.
    """
    factor = "" if times == 1 else f"{times:g} × "
    return Estimand(
        f"[{of}] - {factor}[{minus}] of: {measure.description}",
        lambda runs: measure.read(runs[of]) - times * measure.read(runs[minus]),
        frozenset({of, minus}),
        measure.event,
    )


def within(estimand: Estimand, low: float, high: float) -> Estimand:
    """The estimand, declared to lie between two numbers on every seed; without that, equal values give no verdict."""
    return replace(estimand, description=f"{estimand.description}, in [{low:g}, {high:g}]", support=(low, high))


def between(first: Measure, second: Measure, arm: str, times: float = 1.0) -> Estimand:
    """One measure of an arm minus a multiple of another measure of the same arm."""
    factor = "" if times == 1 else f"{times:g} × "
    return Estimand(
        f"[{arm}] {first.description} - {factor}{second.description}",
        lambda runs: first.read(runs[arm]) - times * second.read(runs[arm]),
        frozenset({arm}),
    )


def _slopes(steps: NDArray[np.int64], values: Array) -> Array:
    centred = steps - steps.mean()
    return np.asarray(centred @ values / (centred @ centred), dtype=np.float64)


def _over_steps(reduce: Callable[..., Array], values: Array) -> Array:
    # A seed without any data is NaN, which the statistics refuse by name; numpy would warn first.
    empty = np.isnan(values).all(0)
    filled = np.where(empty, 0.0, values)
    return np.where(empty, np.nan, reduce(filled, axis=0))
