"""How often intervals over seeds miss the truth: those of the verdicts, beside Student's t.

`python benchmarks/interval_coverage.py [results.json]` draws seeds from known distributions or, given the results of a
finished `testbed verify`, from the measured estimands of its claims, each run's seeds taken for the population. Printed
are the percentages of intervals that lie wholly above and wholly below the truth; at level 99 % half a percent each is
nominal. *The rule* is `analysis.statistics.interval`, with the share of its intervals that lack a bound, which misses
nothing; where the distribution has ends, it stands there with a declared support as well.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats

from analysis.statistics import VERDICT_LEVEL, Estimator, Support, interval
from analysis.statistics.intervals import classical

Array = NDArray[np.float64]
SETS, RESAMPLES = 1000, 4000
SEEDS = (5, 8, 16, 32, 64)


@dataclass(frozen=True)
class Population:
    """Where seeds come from: a sampler of n values, what is estimated, and its true value."""

    name: str
    draw: Callable[[int], Array]
    truth: float
    support: Support | None = None
    estimator: Estimator = "mean"


def known_populations(rng: np.random.Generator) -> Iterator[Population]:
    yield Population("normal", lambda n: rng.normal(size=n), 0.0)
    yield Population("lognormal, σ = ½", lambda n: rng.lognormal(0.0, 0.5, n), math.exp(0.125))
    yield Population("lognormal, σ = 1", lambda n: rng.lognormal(0.0, 1.0, n), math.exp(0.5))
    yield Population("t, 3 degrees", lambda n: rng.standard_t(3, n), 0.0)
    for share in (0.5, 0.9, 0.97):
        yield Population(
            f"two values, {share:g}", lambda n, share=share: (rng.random(n) < share).astype(float), share, (0.0, 1.0)
        )
    values, shares = np.array([0.0, 0.5, 1.0]), np.array([0.02, 0.08, 0.9])
    yield Population("three values, .94", lambda n: rng.choice(values, n, p=shares), float(values @ shares), (0.0, 1.0))
    yield Population(
        "paired, mostly 0: -1, 0, 1", lambda n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.02, 0.96, 0.02]), 0.0, (-1.0, 1.0)
    )
    yield Population("nine in ten 0, else uniform", lambda n: (rng.random(n) < 0.1) * rng.random(n), 0.05, (0.0, 1.0))
    yield Population("equal", lambda n: np.full(n, 0.3), 0.3, (0.0, 1.0))
    yield Population("interquartile mean, normal", lambda n: rng.normal(size=n), 0.0, estimator="iqm")
    # The mean of the middle half: 2 ∫ q(u) du from 1/4 to 3/4, q the quantile function.
    middle, _ = integrate.quad(stats.lognorm(1.0).ppf, 0.25, 0.75)
    yield Population(
        "interquartile mean, lognormal, σ = 1", lambda n: rng.lognormal(0.0, 1.0, n), 2 * middle, estimator="iqm"
    )
    yield Population(
        "interquartile mean, four in five 0, else 1",
        lambda n: (rng.random(n) < 0.2).astype(float),
        0.0,
        estimator="iqm",
    )


def measured_populations(path: Path, rng: np.random.Generator) -> Iterator[Population]:
    """Every claim with one number per seed, its seeds taken for the population."""
    for row in json.loads(path.read_text(encoding="utf-8"))["claims"]:
        values = np.array(row["per_seed"], dtype=np.float64)
        if values.ndim == 1 and len(values) >= 20 and np.ptp(values) > 0:
            yield Population(row["id"], lambda n, values=values: rng.choice(values, n), float(values.mean()))


def misses(population: Population, seeds: int, sets: int) -> dict[str, tuple[float, float, float]]:
    """Shares of intervals above the truth, below it, and with a missing bound, by method."""
    counts: dict[str, Array] = {}
    supports = {"the rule": None, "with its support": population.support}
    for stream in range(sets):
        values = population.draw(seeds)
        # What a standard error of 0 says of equal values is that one value.
        bounds = {"t": classical(values, population.estimator, VERDICT_LEVEL)[:2]}
        for method, support in supports.items():
            if method == "the rule" or support is not None:
                found = interval(
                    values, VERDICT_LEVEL, population.estimator, support=support, resamples=RESAMPLES, seed=stream
                )
                bounds[method] = (found.low, found.high)
        for method, (low, high) in bounds.items():
            open_ended = not (math.isfinite(low) and math.isfinite(high))
            # Equal values have a rounding error of their own.
            wrong = [low > population.truth + 1e-12, high < population.truth - 1e-12, open_ended]
            counts[method] = counts.get(method, np.zeros(3)) + wrong
    return {method: tuple(count / sets) for method, count in counts.items()}


def main() -> None:
    rng = np.random.default_rng(0)
    measured = len(sys.argv) > 1
    populations = measured_populations(Path(sys.argv[1]), rng) if measured else known_populations(rng)
    print(f"{100 * VERDICT_LEVEL:g} % intervals above / below the truth, of {SETS // 10 if measured else SETS} each\n")
    print("| population | seeds | t | the rule | without a bound | with its support |")
    print("|---|---|---|---|---|---|")
    totals: list[float] = []
    for population in populations:
        for seeds in (32,) if measured else SEEDS:
            found = misses(population, seeds, SETS // 10 if measured else SETS)
            cells = {method: f"{100 * above:.1f} / {100 * below:.1f}" for method, (above, below, _) in found.items()}
            row = [cells[name] for name in ("t", "the rule")]
            row += [f"{100 * found['the rule'][2]:.0f} %", cells.get("with its support", "")]
            print(f"| {population.name} | {seeds} | {' | '.join(row)} |", flush=True)
            totals.append(sum(found["the rule"][:2]))
    if measured:
        print(f"\nThe rule, both sides: mean over claims {np.mean(totals):.2%}, worst claim {np.max(totals):.2%}")


if __name__ == "__main__":
    main()
