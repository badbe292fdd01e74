"""How often intervals over seeds miss the truth: Student's t, BCa, the studentised bootstrap, and the wider of two.

`python benchmarks/interval_coverage.py [results.json]` draws seeds from known distributions or, given the results of a
finished `testbed verify`, from the measured estimands of its claims, each run's seeds taken for the population. Printed
are the shares of intervals that lie wholly above and wholly below the true mean; at level 99 % half a percent each is
nominal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import VERDICT_LEVEL
from analysis.statistics.intervals import bca, classical, studentised

Array = NDArray[np.float64]
SETS, RESAMPLES = 2000, 4000
METHODS = ("t", "BCa", "studentised", "wider of t and studentised")


def known_populations(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[int], Array], float]]:
    """Name, a sampler of n values, and the true mean."""
    yield "normal", lambda n: rng.normal(size=n), 0.0
    yield "skewed (lognormal, σ = ½)", lambda n: rng.lognormal(0.0, 0.5, n), math.exp(0.125)
    yield "very skewed (lognormal, σ = 1)", lambda n: rng.lognormal(0.0, 1.0, n), math.exp(0.5)
    yield "heavy tails (t, 3 degrees)", lambda n: rng.standard_t(3, n), 0.0


def measured_populations(path: Path, rng: np.random.Generator) -> Iterator[tuple[str, Callable[[int], Array], float]]:
    """The same of every claim with one number per seed."""
    for row in json.loads(path.read_text(encoding="utf-8"))["claims"]:
        values = np.asarray(row["per_seed"], dtype=np.float64)
        if values.ndim == 1 and len(values) >= 20 and np.ptp(values) > 0:
            yield row["id"], lambda n, values=values: rng.choice(values, n), float(values.mean())


def misses(draw: Callable[[int], Array], truth: float, seeds: int, sets: int) -> dict[str, tuple[float, float]]:
    """Shares of intervals above and below the truth, by method."""
    counts = dict.fromkeys(METHODS, np.zeros(2))
    for stream in range(sets):
        values = draw(seeds)
        if np.ptp(values) == 0:
            continue
        bounds = {
            "t": classical(values, "mean", VERDICT_LEVEL)[:2],
            "BCa": bca(values, "mean", RESAMPLES, stream)(VERDICT_LEVEL)[:2],
            "studentised": studentised(values, "mean", RESAMPLES, stream)(VERDICT_LEVEL)[:2],
        }
        pair = np.array([bounds["t"], bounds["studentised"]])
        bounds["wider of t and studentised"] = (pair[:, 0].min(), pair[:, 1].max())
        for method, (low, high) in bounds.items():
            counts[method] = counts[method] + [low > truth, high < truth]
    return {method: (float(count[0]) / sets, float(count[1]) / sets) for method, count in counts.items()}


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{100 * VERDICT_LEVEL:g} % intervals that lie above / below the truth, of {SETS} each")
    print("population | seeds | " + " | ".join(METHODS))
    if len(sys.argv) == 1:
        for name, draw, truth in known_populations(rng):
            for seeds in (20, 32, 64, 128):
                found = misses(draw, truth, seeds, SETS)
                print(f"{name} | {seeds} | " + " | ".join(f"{a:.2%} / {b:.2%}" for a, b in found.values()), flush=True)
        return
    totals = {method: [] for method in METHODS}
    for name, draw, truth in measured_populations(Path(sys.argv[1]), rng):
        found = misses(draw, truth, 32, SETS // 10)
        for method, pair in found.items():
            totals[method].append(sum(pair))
        print(f"{name} | 32 | " + " | ".join(f"{a:.1%} / {b:.1%}" for a, b in found.values()), flush=True)
    print("mean over claims, both sides | 32 | " + " | ".join(f"{np.mean(totals[m]):.2%}" for m in METHODS))
    print("worst claim, both sides | 32 | " + " | ".join(f"{np.max(totals[m]):.2%}" for m in METHODS))


if __name__ == "__main__":
    main()
