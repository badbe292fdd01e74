"""From a claim to its verdict: the same rules for every claim."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from analysis.claims._claim import Claim, ExactClaim, StatisticalClaim, get_claim
from analysis.statistics import Judgement, judge, judge_identity
from analysis.trajectories import Trajectories, curve
from testbed.errors import ConfigError
from testbed.simulation import simulate

__all__ = ["Verdict", "run_claim"]


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
    curves: tuple[Mapping[str, Any], ...] = ()
    per_seed: tuple[float, ...] = field(default=())
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
    runs = _simulate(claim, claim.arms, seeds, seed)
    sabotaged_runs = runs | _simulate(claim, claim.falsifier.arms, seeds, seed)
    values = claim.estimand.compute(runs)
    own = _judge(claim, values)
    sabotaged = _judge(claim, claim.estimand.compute(sabotaged_runs))
    verdict, reason = _final_verdict(own, sabotaged, _vacuous(claim, runs))
    return Verdict(
        **_shared(claim, seed, seeds, started),
        kind="statistical",
        setting=_described_setting(claim),
        verdict=verdict,
        reason=reason,
        estimate=own.estimate,
        interval=None if math.isnan(own.low) else (own.low, own.high),
        level=own.level,
        threshold=claim.threshold,
        direction=claim.direction,
        estimand=claim.estimand.description,
        seeds=seeds,
        seeds_needed=own.seeds_needed,
        falsifier=_falsifier(claim, sabotaged),
        reproduce=f"testbed verify {claim.id} --seeds {seeds} --seed {seed}",
        curves=tuple(_without_nan(curve(metric, runs)) for metric in claim.curves),
        per_seed=tuple(float(value) for value in values),
    )


def _simulate(
    claim: StatisticalClaim, arms: Mapping[str, Mapping[str, Any]], seeds: int, seed: int
) -> dict[str, Trajectories]:
    return {
        name: Trajectories(simulate(**{**claim.setting, **arm}, seeds=seeds, seed=seed).table)
        for name, arm in arms.items()
    }


def _judge(claim: StatisticalClaim, values: np.ndarray) -> Judgement:
    missing = int(np.isnan(values).sum())
    if missing:
        judged = judge([0.0] * 1, claim.direction, claim.threshold)
        return Judgement(
            **{
                **vars(judged),
                "estimate": math.nan,
                "seeds": len(values) - missing,
                "reason": f"the estimand has no value in {missing} of {len(values)} seeds, so there is no interval",
            }
        )
    return judge(values, claim.direction, claim.threshold)


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


def _described_setting(claim: StatisticalClaim) -> dict[str, Any]:
    arms = {
        f"arm {name}": ", ".join(f"{key}={value}" for key, value in arm.items()) for name, arm in claim.arms.items()
    }
    return {key: str(value) for key, value in claim.setting.items()} | arms


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
