"""From a claim to its verdict: the same rules for every claim."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from analysis.claims._arms import ArmCache, lean, run_arms
from analysis.claims._claim import Claim, ExactClaim, StatisticalClaim, get_claim
from analysis.claims._estimands import Estimand
from analysis.statistics import (
    MINIMUM_SEEDS,
    VERDICT_LEVEL,
    Interval,
    Judgement,
    decide,
    interval,
    judge,
    judge_identity,
    monotone_trend,
    order_p_value,
    p_value,
    proportion_interval,
    smallest_step,
    survival,
)
from analysis.trajectories import Trajectories, curve
from testbed.errors import ConfigError

__all__ = ["MASTER_SEED", "Judged", "Verdict", "judge_arms", "judge_values", "run_claim", "tune"]

MASTER_SEED = 2001
"""Master seed of the verdicts on record: nothing about any claim was chosen with it."""
CHOOSING_SEEDS = {
    range(101, 102): "settings and numbers of seeds",
    range(10_001, 10_002): "learning rates",
    range(20_000, 21_000): "numbers of seeds, by the calibration,",
}
"""Master seeds that never judge, and what was chosen with them."""
MISSING_SHARE = 0.01
"""Largest share of seeds without a value with which a verdict is still possible."""


@dataclass(frozen=True)
class Verdict:
    """What a run of a claim found; the fields are those of a row of `results.json`."""

    id: str
    paper: str
    title: str
    source: str
    statement: str
    kind: str
    """`exact` or `statistical`."""
    tier: str
    scope: str
    setting: Mapping[str, Any]
    verdict: str
    """`reproduced`, `refuted`, `inconclusive`, `broken` (its falsifier passed) or `vacuous` (nothing acted)."""
    recorded: str
    reason: str
    estimate: float
    interval: tuple[float, float] | None
    level: float | None
    threshold: float
    direction: str
    unit: str
    estimand: str
    seeds: int | None
    seeds_needed: int | None
    seconds: float
    falsifier: Mapping[str, Any]
    notes: tuple[str, ...]
    protocol_hash: str
    reproduce: str
    null: Mapping[str, Any] | None = None
    """The arms without a reward signal, beside a claim about entropy."""
    controls: tuple[Mapping[str, Any], ...] = ()
    """Other readings of the same runs, each an estimate with an interval and without a verdict."""
    event_times: Mapping[str, Mapping[str, Any]] | None = None
    """Of a claim about waiting times, per arm: how many seeds saw the event, and the Kaplan-Meier median."""
    trend_p_value: float | None = None
    """Page's test of a claim about an order: whether a trend is visible at all, where the verdict asks every step."""
    p_value: float | None = None
    """One-sided, consistent with the interval; adjusted over a whole run by `analysis.verify`."""
    curves: tuple[Mapping[str, Any], ...] = ()
    per_seed: tuple[Any, ...] = field(default=())
    """The estimand of every seed, so that anyone can recompute the interval."""

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one on record, or settles what the record leaves open.

        The record is inconclusive where other master seeds disagree or none of them settles the claim, so that a single
        run which does is no contradiction. A falsifier that passes and a mechanism that never acts always are.
        """
        settled = self.recorded == "inconclusive" and self.verdict in ("reproduced", "refuted")
        return settled or self.verdict == self.recorded

    def to_json(self) -> dict[str, Any]:
        """The row of `results.json`; a missing number is null."""
        row = asdict(self)
        return {key: _without_nan(value) for key, value in row.items()}


def run_claim(
    name: str | Claim, seeds: int | None = None, seed: int = MASTER_SEED, *, cache: ArmCache | None = None
) -> Verdict:
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
        return _run_exact(claim, seed, started)
    if isinstance(claim, StatisticalClaim):
        return _run_statistical(claim, claim.seeds if seeds is None else seeds, seed, started, cache)
    raise ConfigError(f"claim {claim.id} is a {type(claim).__name__}; expected an ExactClaim or a StatisticalClaim")


def _run_exact(claim: ExactClaim, seed: int, started: float) -> Verdict:
    assert claim.falsifier.measure is not None
    own = judge_identity(claim.measure(), claim.tolerance)
    sabotaged = judge_identity(claim.falsifier.measure(), claim.tolerance)
    verdict, reason = _final_verdict(own, sabotaged, None)
    return Verdict(
        **_shared(claim, seed, None, started),
        kind="exact",
        setting={},
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
        falsifier=_falsifier(claim, sabotaged),
        reproduce=f"testbed verify {claim.id}",
    )


def _run_statistical(claim: StatisticalClaim, seeds: int, seed: int, started: float, cache: ArmCache | None) -> Verdict:
    chosen, sensitivity, edges = tune(claim, claim.arms, cache)
    runs = run_arms(claim.setting, chosen, seeds, seed, cache)
    sabotage, _, _ = tune(claim, claim.falsifier.arms, cache)
    # Only the estimand reads the falsifier's arms.
    sabotaged_setting = lean(claim.setting, claim.estimand.description)
    judged = judge_arms(claim, runs, runs | run_arms(sabotaged_setting, sabotage, seeds, seed, cache))
    event_times, waiting = _event_times(claim, runs)
    curves = [curve(metric, runs) for metric in claim.curves] + waiting + sensitivity
    shared = _shared(claim, seed, seeds, started)
    return Verdict(
        **shared | {"notes": (*claim.notes, *edges)},
        kind="statistical",
        setting=_described_setting(claim, chosen),
        verdict=judged.verdict,
        reason=judged.reason,
        estimate=judged.own.estimate,
        interval=judged.interval,
        level=judged.own.level,
        threshold=claim.threshold,
        direction=claim.direction,
        estimand=claim.estimand.description,
        seeds=seeds,
        seeds_needed=judged.own.seeds_needed,
        falsifier=judged.falsifier(claim),
        null=_null(claim, seeds, seed, cache),
        controls=tuple(_reading(control, runs) for control in claim.controls),
        event_times=event_times,
        p_value=_p_value(claim, judged.values),
        trend_p_value=_trend_p_value(claim, judged.values),
        reproduce=f"testbed verify {claim.id} --seeds {seeds} --seed {seed}",
        curves=tuple(_without_nan(item) for item in curves),
        per_seed=judged.per_seed,
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """The verdict on the arms of a statistical claim."""

    verdict: str
    reason: str
    own: Judgement
    sabotaged: Judgement
    values: np.ndarray
    """The estimand of every seed."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bounds, or `None` where there are none."""
        return None if math.isnan(self.own.low) else (self.own.low, self.own.high)

    @property
    def per_seed(self) -> tuple[Any, ...]:
        """`values` for JSON; a missing number is null."""
        return tuple(_without_nan(self.values.tolist()))

    def falsifier(self, claim: StatisticalClaim) -> dict[str, Any]:
        """What the sabotaged variant did, for JSON."""
        described: dict[str, Any] = _without_nan(_falsifier(claim, self.sabotaged))
        return described


def judge_arms(
    claim: StatisticalClaim, runs: Mapping[str, Trajectories], sabotaged_runs: Mapping[str, Trajectories]
) -> Judged:
    """Judge a claim by its arms' trajectories and those of its falsifier, whatever they are trajectories of."""
    values = claim.estimand.compute(runs)
    own = judge_values(claim, values)
    sabotaged = judge_values(claim, claim.estimand.compute(sabotaged_runs))
    verdict, reason = _final_verdict(own, sabotaged, _vacuous(claim, runs))
    return Judged(verdict, reason, own, sabotaged, values)


def judge_values(claim: StatisticalClaim, values: np.ndarray) -> Judgement:
    """The verdict on one number per seed, by the claim's statistic, side and threshold.

    A seed in which the estimand has no value, such as one that never reached the reward at which entropies are
    compared, cannot be left out in silence. Where at most one seed in a hundred is such, the verdict is given only if
    it is the same with the lowest and with the highest value of any other seed in its place.
    """
    missing = _missing(values)
    if len(values) < MINIMUM_SEEDS:
        empty = Interval(math.nan, math.nan, math.nan, claim.level, "none", len(values) - missing)
        known = values.ndim == 1 and not missing
        return replace(
            decide(empty, claim.direction, claim.threshold), estimate=float(np.mean(values)) if known else math.nan
        )
    if not missing:
        return _judge_complete(claim, values)
    without = f"the estimand has no value in {missing} of {len(values)} seeds"
    if missing > MISSING_SHARE * len(values):
        empty = Interval(math.nan, math.nan, math.nan, claim.level, "none", len(values) - missing)
        judged = decide(empty, claim.direction, claim.threshold)
        return replace(judged, reason=f"{without}, so there is no interval")
    low, high = (_judge_complete(claim, filled) for filled in _filled(values))
    judged = low if low.verdict == high.verdict else replace(low, verdict="inconclusive", opposite=False)
    return replace(
        judged,
        low=min(low.low, high.low),
        high=max(low.high, high.high),
        reason=f"{judged.reason}; {without}, and lowest and highest values in their place give "
        f"{'the same' if low.verdict == high.verdict else 'different verdicts'}",
    )


def _judge_complete(claim: StatisticalClaim, values: np.ndarray) -> Judgement:
    if claim.statistic == "proportion":
        return decide(proportion_interval(values, claim.level), claim.direction, claim.threshold)
    if claim.statistic == "smallest step":
        bounds = smallest_step(values, _order(claim), claim.level)
        return decide(bounds, "greater", abs(claim.threshold))
    return judge(values, claim.direction, claim.threshold, claim.level, claim.statistic)


def _missing(values: np.ndarray) -> int:
    return int(np.isnan(values).reshape(len(values), -1).any(1).sum())


def _filled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values with every missing seed at the lowest, and at the highest, of any other seed."""
    rows = values.reshape(len(values), -1)
    without = np.isnan(rows).any(1)
    # Of an order it is the steps that are judged.
    steps = np.diff(rows[~without], axis=1, prepend=0.0)
    extremes = [np.cumsum(extreme) for extreme in (steps.min(0), steps.max(0))]
    low, high = (np.where(without[:, None], extreme, rows).reshape(values.shape) for extreme in extremes)
    return low, high


def _order(claim: StatisticalClaim) -> Literal["increasing", "decreasing"]:
    return "increasing" if claim.direction == "greater" else "decreasing"


def _complete(values: np.ndarray) -> bool:
    return len(values) >= MINIMUM_SEEDS and not _missing(values)


def _p_value(claim: StatisticalClaim, values: np.ndarray) -> float | None:
    """One-sided, from the same interval; `None` for a share of seeds, or where there is no interval."""
    enough = len(values) >= MINIMUM_SEEDS and _missing(values) <= MISSING_SHARE * len(values)
    if claim.statistic == "proportion" or not enough:
        return None
    complete = _filled(values) if _missing(values) else (values,)
    if claim.statistic == "smallest step":
        return max(order_p_value(item, _order(claim), abs(claim.threshold)) for item in complete)
    estimator = claim.statistic
    return max(p_value(item, claim.direction, claim.threshold, estimator) for item in complete)


def _trend_p_value(claim: StatisticalClaim, values: np.ndarray) -> float | None:
    if claim.statistic != "smallest step" or values.shape[-1] < 3 or not _complete(values):
        return None
    return monotone_trend(values, _order(claim))


def _null(claim: StatisticalClaim, seeds: int, seed: int, cache: ArmCache | None) -> dict[str, Any] | None:
    """What the arms do without a reward signal: an estimate with its interval, without a verdict."""
    if claim.null is None:
        return None
    unrewarded = lean({**claim.setting, **claim.null.setting}, claim.null.estimand.description)
    needed = {name: claim.arms[name] for name in claim.null.estimand.arms}
    runs = run_arms(unrewarded, needed, seeds, seed, cache)
    setting = {key: str(value) for key, value in claim.null.setting.items()}
    return {"setting": setting} | _reading(claim.null.estimand, runs)


def _reading(estimand: Estimand, runs: Mapping[str, Trajectories]) -> dict[str, Any]:
    values = estimand.compute(runs)
    bounds = interval(values, VERDICT_LEVEL) if _complete(values) else None
    return {
        "estimand": estimand.description,
        "estimate": bounds.estimate if bounds else None,
        "interval": [bounds.low, bounds.high] if bounds else None,
    }


def _event_times(
    claim: StatisticalClaim, runs: Mapping[str, Trajectories]
) -> tuple[dict[str, dict[str, Any]] | None, list[dict[str, Any]]]:
    """Of a claim about waiting times: what each arm's seeds saw, and the Kaplan-Meier curves."""
    event = claim.estimand.event
    if event is None:
        return None, []
    seen, series = {}, []
    for name in sorted(claim.estimand.arms):
        times, observed = event.read(runs[name])
        if len(times) < MINIMUM_SEEDS or times.min() <= 0:
            continue
        found = survival(times, observed, level=VERDICT_LEVEL)
        seen[name] = {
            "events": found.events,
            "seeds": len(times),
            "median": found.median.estimate,
            "median_interval": [found.median.low, found.median.high],
            "restricted_mean": found.restricted_mean.estimate,
            "horizon": found.horizon,
        }
        series.append(
            {
                "label": name,
                "x": [0.0, *found.times.tolist()],
                "mean": [1.0, *found.survival.tolist()],
                "low": [1.0, *found.low.tolist()],
                "high": [1.0, *found.high.tolist()],
            }
        )
    figure = {
        "title": f"Kaplan-Meier: {event.description}",
        "x_label": "rollouts",
        "y_label": "share of seeds still waiting",
        "series": series,
    }
    return seen, [figure] if series else []


def tune(
    claim: StatisticalClaim, arms: Mapping[str, Mapping[str, Any]], cache: ArmCache | None = None
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Each arm with its chosen learning rate, the sensitivity curve, and a sentence per choice at a grid's edge."""
    if claim.tuning is None:
        return {name: dict(arm) for name, arm in arms.items()}, [], []
    tuning, chosen, series, edges = claim.tuning, {}, [], []
    for name, arm in arms.items():
        means, errors = [], []
        for rate in tuning.grid:
            setting = lean({**claim.setting, "learning_rate": rate}, tuning.measure.description)
            runs = run_arms(setting, {name: arm}, tuning.seeds, tuning.master_seed, cache)
            values = tuning.measure.read(runs[name])
            means.append(float(values.mean()))
            errors.append(float(1.96 * values.std(ddof=1) / math.sqrt(len(values))))
        best = int(np.argmax(means) if tuning.better == "higher" else np.argmin(means))
        chosen[name] = {**arm, "learning_rate": tuning.grid[best]}
        if best in (0, len(tuning.grid) - 1):
            edges.append(
                f"The best learning rate of {name}, {tuning.grid[best]:g}, is the "
                f"{'first' if best == 0 else 'last'} of its grid, so a better one may lie beyond."
            )
        series.append(
            {
                "label": name,
                "x": [math.log2(rate) for rate in tuning.grid],
                "mean": means,
                "low": [mean - error for mean, error in zip(means, errors, strict=True)],
                "high": [mean + error for mean, error in zip(means, errors, strict=True)],
            }
        )
    figure = {
        "title": "Sensitivity to the learning rate, on tuning seeds",
        "x_label": "log2 of the learning rate",
        "y_label": tuning.measure.description,
        "series": series,
    }
    return chosen, [figure], edges


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


def _final_verdict(own: Judgement, sabotaged: Judgement, vacuous: str | None) -> tuple[str, str]:
    if vacuous is not None:
        return "vacuous", vacuous
    if sabotaged.verdict == "reproduced":
        return "broken", "the sabotaged variant passes as well, so this experiment cannot tell true from false"
    return own.verdict, own.reason


def _falsifier(claim: Claim, sabotaged: Judgement) -> dict[str, Any]:
    return {
        "description": claim.falsifier.description,
        "verdict": sabotaged.verdict,
        "estimate": sabotaged.estimate,
        "interval": None
        if math.isnan(sabotaged.low) or isinstance(claim, ExactClaim)
        else [sabotaged.low, sabotaged.high],
    }


def _shared(claim: Claim, seed: int, seeds: int | None, started: float) -> dict[str, Any]:
    return {
        "id": claim.id,
        "paper": claim.paper,
        "title": claim.title,
        "source": claim.source,
        "statement": claim.statement,
        "tier": claim.tier,
        "scope": claim.scope,
        "recorded": claim.recorded,
        "unit": claim.unit,
        "seconds": time.perf_counter() - started,
        "notes": claim.notes,
        "protocol_hash": claim.protocol_hash(seeds, seed),
    }


def _described_setting(claim: StatisticalClaim, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    arms = {f"arm {name}": ", ".join(f"{key}={value}" for key, value in arm.items()) for name, arm in chosen.items()}
    return {key: str(value) for key, value in claim.setting.items()} | arms


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
