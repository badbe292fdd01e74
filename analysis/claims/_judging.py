"""From a claim to its verdict: the same rules for every claim."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from analysis.claims._claim import Claim, ExactClaim, StatisticalClaim, get_claim
from analysis.statistics import (
    MINIMUM_SEEDS,
    Interval,
    Judgement,
    decide,
    interval,
    judge,
    judge_identity,
    p_value,
    proportion_interval,
    smallest_step,
)
from analysis.trajectories import Trajectories, curve
from testbed.errors import ConfigError
from testbed.simulation import simulate

__all__ = ["Judged", "Verdict", "judge_arms", "judge_values", "run_arms", "run_claim"]


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
    p_value: float | None = None
    """One-sided, consistent with the interval; adjusted over a whole run by `analysis.verify`."""
    curves: tuple[Mapping[str, Any], ...] = ()
    per_seed: tuple[Any, ...] = field(default=())
    """The estimand of every seed, so that anyone can recompute the interval."""

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one on record."""
        return self.verdict == self.recorded

    def to_json(self) -> dict[str, Any]:
        """The row of `results.json`; a missing number is null."""
        row = asdict(self)
        return {key: _without_nan(value) for key, value in row.items()}


def run_claim(name: str | Claim, seeds: int | None = None, seed: int = 0) -> Verdict:
    """Run a claim, its falsifier and its guards, and judge it.

    Args:
        name: a claim's id, or a claim.
        seeds: seeds of a statistical claim; `None`: the claim's own number. Fewer than 5 give no verdict.
        seed: master seed.

    Raises:
        UnknownNameError: no such claim.
        ConfigError: `seeds` is not a positive whole number.

    Example:
        >>> run_claim("theory/sapo-gate").verdict
        'reproduced'
    """
    claim = get_claim(name) if isinstance(name, str) else name
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise ConfigError(f"seeds is {seeds!r}; expected a whole number of at least 1")
    started = time.perf_counter()
    if isinstance(claim, ExactClaim):
        return _run_exact(claim, seed, started)
    if isinstance(claim, StatisticalClaim):
        return _run_statistical(claim, claim.seeds if seeds is None else seeds, seed, started)
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


def _run_statistical(claim: StatisticalClaim, seeds: int, seed: int, started: float) -> Verdict:
    chosen, sensitivity = _tune(claim, claim.arms)
    runs = run_arms(claim.setting, chosen, seeds, seed)
    sabotage, _ = _tune(claim, claim.falsifier.arms)
    sabotaged_runs = runs | run_arms(claim.setting, sabotage, seeds, seed)
    judged = judge_arms(claim, runs, sabotaged_runs)
    curves = [curve(metric, runs) for metric in claim.curves] + sensitivity
    return Verdict(
        **_shared(claim, seed, seeds, started),
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
        null=_null(claim, seeds, seed),
        p_value=_p_value(claim, judged.values),
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


def run_arms(
    setting: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]], seeds: int, seed: int
) -> dict[str, Trajectories]:
    """The trajectories of every arm, over paired seeds."""
    return {
        name: Trajectories(simulate(**{**setting, **arm}, seeds=seeds, seed=seed).table) for name, arm in arms.items()
    }


def judge_values(claim: StatisticalClaim, values: np.ndarray) -> Judgement:
    """The verdict on one number per seed, by the claim's statistic, side and threshold."""
    missing = int(np.isnan(values).reshape(len(values), -1).any(1).sum())
    if missing or len(values) < MINIMUM_SEEDS:
        empty = Interval(math.nan, math.nan, math.nan, 0.90, "none", len(values) - missing)
        judged = decide(empty, claim.direction, claim.threshold)
        if not missing:
            estimate = float(np.mean(values)) if values.ndim == 1 else math.nan
            return replace(judged, estimate=estimate)
        return replace(
            judged, reason=f"the estimand has no value in {missing} of {len(values)} seeds, so there is no interval"
        )
    if claim.statistic == "proportion":
        return decide(proportion_interval(values), claim.direction, claim.threshold)
    if claim.statistic == "smallest step":
        bounds = smallest_step(values, "increasing" if claim.direction == "greater" else "decreasing")
        return decide(bounds, "greater", abs(claim.threshold))
    return judge(values, claim.direction, claim.threshold, estimator=claim.statistic)


def _p_value(claim: StatisticalClaim, values: np.ndarray) -> float | None:
    """One-sided, from the same interval; `None` where the statistic has no p-value of that kind."""
    if claim.statistic == "proportion" or claim.statistic == "smallest step":
        return None
    if np.isnan(values).any() or len(values) < MINIMUM_SEEDS:
        return None
    return p_value(values, claim.direction, claim.threshold, estimator=claim.statistic)


def _null(claim: StatisticalClaim, seeds: int, seed: int) -> dict[str, Any] | None:
    """What the arms do without a reward signal: an estimate with its interval, without a verdict."""
    if claim.null is None:
        return None
    runs = run_arms({**claim.setting, **claim.null.setting}, claim.arms, seeds, seed)
    values = claim.null.estimand.compute(runs)
    known = len(values) >= MINIMUM_SEEDS and not np.isnan(values).any()
    bounds = interval(values) if known else None
    return {
        "setting": {key: str(value) for key, value in claim.null.setting.items()},
        "estimand": claim.null.estimand.description,
        "estimate": bounds.estimate if bounds else None,
        "interval": [bounds.low, bounds.high] if bounds else None,
    }


def _tune(
    claim: StatisticalClaim, arms: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Each arm with the learning rate chosen for it, and the sensitivity curve that shows the choice."""
    if claim.tuning is None:
        return {name: dict(arm) for name, arm in arms.items()}, []
    tuning, chosen, series = claim.tuning, {}, []
    for name, arm in arms.items():
        means, errors = [], []
        for rate in tuning.grid:
            setting = {**claim.setting, "learning_rate": rate}
            values = tuning.measure.read(run_arms(setting, {name: arm}, tuning.seeds, tuning.master_seed)[name])
            means.append(float(values.mean()))
            errors.append(float(1.96 * values.std(ddof=1) / math.sqrt(len(values))))
        best = int(np.argmax(means) if tuning.better == "higher" else np.argmin(means))
        chosen[name] = {**arm, "learning_rate": tuning.grid[best]}
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
    return chosen, [figure]


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
