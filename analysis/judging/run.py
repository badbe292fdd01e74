"""From a claim to its result: the same rules for every claim."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.judging.arms import ArmCache, lean, run_arms
from analysis.judging.claim import Claim, ExactClaim, StatisticalClaim, get_claim
from analysis.judging.estimands import Estimand
from analysis.judging.result import (
    ClaimResult,
    ClaimText,
    ClaimVerdict,
    FalsifierResult,
    NullResult,
    Reading,
    WaitingTimes,
)
from analysis.judging.tuning import tune
from analysis.judging.values import is_complete, judge_values, one_sided_p_value, trend_p_value
from analysis.statistics import (
    MINIMUM_SEEDS,
    VERDICT_LEVEL,
    Judgement,
    interval,
    judge_identity,
    survival,
)
from analysis.trajectories import Figure, Series, Trajectories, curve
from testbed.errors import ConfigError

__all__ = ["CHOOSING_SEEDS", "MASTER_SEED", "judge_arms", "run_claim"]

MASTER_SEED = 2001
"""Master seed of the verdicts on record: nothing about any claim was chosen with it."""
CHOOSING_SEEDS = {
    range(101, 102): "settings and numbers of seeds",
    range(10_001, 10_002): "learning rates",
    range(20_000, 21_000): "numbers of seeds, by the calibration,",
}
"""Master seeds that never judge, and what was chosen with them."""


def run_claim(
    name: str | Claim, seeds: int | None = None, seed: int = MASTER_SEED, *, cache: ArmCache | None = None
) -> ClaimResult:
    """Run a claim, its falsifier and its guards, and judge it.

    Args:
        name: a claim's id, or a claim.
        seeds: seeds of a statistical claim; `None`: the claim's own number. Fewer than 5 give no verdict.
        seed: master seed.
        cache: where finished arms are kept for other claims that have them too; `None`: nowhere.

    Raises:
        UnknownNameError: no such claim.
        ConfigError: `seeds` is not a positive whole number, or `seed` is one that settings were chosen with.

    Example:
        >>> run_claim("theory/sapo-gate").verdict
        'reproduced'
    """
    claim = get_claim(name) if isinstance(name, str) else name
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise ConfigError(f"seeds is {seeds!r}; expected a whole number of at least 1")
    for reserved, chosen in CHOOSING_SEEDS.items():
        if seed in reserved:
            raise ConfigError(
                f"seed is {seed}, with which {chosen} were chosen; a verdict needs seeds that chose nothing, such as "
                f"{MASTER_SEED}"
            )
    started = time.perf_counter()
    if isinstance(claim, ExactClaim):
        result = _run_exact(claim, seed)
    elif isinstance(claim, StatisticalClaim):
        result = _run_statistical(claim, claim.seeds if seeds is None else seeds, seed, cache)
    else:
        raise ConfigError(f"claim {claim.id} is a {type(claim).__name__}; expected an ExactClaim or a StatisticalClaim")
    return replace(result, seconds=time.perf_counter() - started)


def judge_arms(
    claim: StatisticalClaim, runs: Mapping[str, Trajectories], sabotaged_runs: Mapping[str, Trajectories], seed: int
) -> ClaimResult:
    """Judge a claim by its arms' trajectories and those of its falsifier, whatever they are trajectories of.

    Args:
        claim: what is judged.
        runs: the claim's arms by name, over paired seeds.
        sabotaged_runs: the same with the falsifier's arms in their places.
        seed: master seed of the runs, for the protocol's hash.
    """
    values = claim.estimand.compute(runs)
    own = judge_values(claim, values)
    sabotaged = judge_values(claim, claim.estimand.compute(sabotaged_runs))
    verdict, reason = _final_verdict(own, sabotaged, _vacuous(claim, runs))
    event_times, waiting = _event_times(claim, runs)
    return ClaimResult(
        claim=ClaimText.of(claim),
        kind="statistical",
        verdict=verdict,
        reason=reason,
        estimate=own.estimate,
        interval=_bounds(own),
        level=own.level,
        threshold=claim.threshold,
        direction=claim.direction,
        estimand=claim.estimand.description,
        seeds=len(values),
        seeds_needed=own.seeds_needed,
        falsifier=FalsifierResult(
            claim.falsifier.description, sabotaged.verdict, sabotaged.estimate, _bounds(sabotaged)
        ),
        notes=claim.notes,
        protocol_hash=claim.protocol_hash(len(values), seed),
        controls=tuple(_reading(control, runs) for control in claim.controls),
        event_times=event_times,
        trend_p_value=trend_p_value(claim, values),
        p_value=one_sided_p_value(claim, values),
        curves=(*(curve(metric, runs) for metric in claim.curves), *waiting),
        per_seed=tuple(tuple(row) if isinstance(row, list) else row for row in values.tolist()),
    )


def _run_exact(claim: ExactClaim, seed: int) -> ClaimResult:
    assert claim.falsifier.measure is not None
    own = judge_identity(claim.measure(), claim.tolerance)
    sabotaged = judge_identity(claim.falsifier.measure(), claim.tolerance)
    verdict, reason = _final_verdict(own, sabotaged, None)
    return ClaimResult(
        claim=ClaimText.of(claim),
        kind="exact",
        verdict=verdict,
        reason=reason,
        estimate=own.estimate,
        interval=None,
        level=None,
        threshold=claim.tolerance,
        direction="identity",
        estimand="largest deviation from the statement",
        seeds=None,
        seeds_needed=None,
        falsifier=FalsifierResult(claim.falsifier.description, sabotaged.verdict, sabotaged.estimate, None),
        notes=claim.notes,
        protocol_hash=claim.protocol_hash(None, seed),
        reproduce=f"testbed verify {claim.id}",
    )


def _run_statistical(claim: StatisticalClaim, seeds: int, seed: int, cache: ArmCache | None) -> ClaimResult:
    tuned, sabotage = tune(claim, claim.arms, cache), tune(claim, claim.falsifier.arms, cache)
    runs = run_arms(claim.setting, tuned.arms, seeds, seed, cache)
    # Only the estimand reads the falsifier's arms.
    sabotaged_setting = lean(claim.setting, claim.estimand.description)
    sabotaged_runs = runs | run_arms(sabotaged_setting, sabotage.arms, seeds, seed, cache)
    judged = judge_arms(claim, runs, sabotaged_runs, seed)
    return replace(
        judged,
        setting=_described_setting(claim, tuned.arms),
        notes=(*claim.notes, *tuned.at_the_edge),
        null=_null(claim, seeds, seed, cache),
        curves=(*judged.curves, *tuned.sensitivity),
        reproduce=f"testbed verify {claim.id} --seeds {seeds} --seed {seed}",
    )


def _null(claim: StatisticalClaim, seeds: int, seed: int, cache: ArmCache | None) -> NullResult | None:
    """What the arms do without a reward signal: an estimate with its interval, without a verdict."""
    if claim.null is None:
        return None
    unrewarded = lean({**claim.setting, **claim.null.setting}, claim.null.estimand.description)
    needed = {name: claim.arms[name] for name in claim.null.estimand.arms}
    runs = run_arms(unrewarded, needed, seeds, seed, cache)
    setting = {key: str(value) for key, value in claim.null.setting.items()}
    return NullResult(setting, _reading(claim.null.estimand, runs))


def _reading(estimand: Estimand, runs: Mapping[str, Trajectories]) -> Reading:
    values = estimand.compute(runs)
    if not is_complete(values):
        return Reading(estimand.description, math.nan, None)
    bounds = interval(values, VERDICT_LEVEL)
    return Reading(estimand.description, bounds.estimate, (bounds.low, bounds.high))


def _event_times(
    claim: StatisticalClaim, runs: Mapping[str, Trajectories]
) -> tuple[dict[str, WaitingTimes] | None, list[Figure]]:
    """Of a claim about waiting times: what each arm's seeds saw, and the Kaplan-Meier curves."""
    event = claim.estimand.event
    if event is None:
        return None, []
    seen: dict[str, WaitingTimes] = {}
    series: list[Series] = []
    for name in sorted(claim.estimand.arms):
        times, observed = event.read(runs[name])
        if len(times) < MINIMUM_SEEDS or times.min() <= 0:
            continue
        found = survival(times, observed, level=VERDICT_LEVEL)
        seen[name] = WaitingTimes(
            events=found.events,
            seeds=len(times),
            median=found.median.estimate,
            median_interval=(found.median.low, found.median.high),
            restricted_mean=found.restricted_mean.estimate,
            horizon=found.horizon,
        )
        series.append(
            Series(
                label=name,
                x=[0.0, *found.times.tolist()],
                mean=[1.0, *found.survival.tolist()],
                low=[1.0, *found.low.tolist()],
                high=[1.0, *found.high.tolist()],
            )
        )
    figure = Figure(
        title=f"Kaplan-Meier: {event.description}",
        x_label="rollouts",
        y_label="share of seeds still waiting",
        series=series,
    )
    return seen, [figure] if series else []


def _vacuous(claim: StatisticalClaim, runs: Mapping[str, Trajectories]) -> str | None:
    """Why the experiment could not have shown anything, or `None`."""
    for name, run in runs.items():
        if not np.nanmax(run["gradient/norm"][1:], initial=0.0) > 0:
            return f"every gradient of arm {name} was zero"
    if all(np.nanmin(run["ratio/one_fraction"][1:], initial=1.0) == 1 for run in runs.values()):
        return "every probability ratio was 1"
    for name, metric in claim.acts:
        if not np.nanmax(runs[name][metric][1:], initial=0.0) > 0:
            return f"{metric} of arm {name} was never above 0, so the mechanism under test did not act"
    return None


def _final_verdict(own: Judgement, sabotaged: Judgement, vacuous: str | None) -> tuple[ClaimVerdict, str]:
    if vacuous is not None:
        return "vacuous", vacuous
    if sabotaged.verdict == "reproduced":
        return "broken", "the sabotaged variant passes as well, so this experiment cannot tell true from false"
    return own.verdict, own.reason


def _bounds(judged: Judgement) -> tuple[float, float] | None:
    """The bounds, or `None` where there are none."""
    return None if math.isnan(judged.low) else (judged.low, judged.high)


def _described_setting(claim: StatisticalClaim, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    arms = {f"arm {name}": ", ".join(f"{key}={value}" for key, value in arm.items()) for name, arm in chosen.items()}
    return {key: str(value) for key, value in claim.setting.items()} | arms
