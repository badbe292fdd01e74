"""`ClaimResult`: what a run of a claim found, typed; flat only as a row of `results.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from analysis.judging.claim import Claim, Tier
from analysis.statistics import Verdict
from analysis.trajectories import Figure, Series
from testbed.output import missing_as_null

__all__ = [
    "ClaimResult",
    "ClaimText",
    "ClaimVerdict",
    "FalsifierResult",
    "NullResult",
    "Reading",
    "WaitingTimes",
]

ClaimVerdict = Verdict | Literal["broken", "vacuous"]
"""The word for a claim: what its interval says, or `broken` (its falsifier passed), or `vacuous` (nothing acted)."""
Bounds = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ClaimText:
    """What a claim says, as it stood when it was judged; the fields are those of `Claim`."""

    id: str
    paper: str
    title: str
    source: str
    statement: str
    tier: Tier
    scope: str
    recorded: Verdict | None
    """`None`: nothing is on record, as for another device than the record's."""
    unit: str

    @classmethod
    def of(cls, claim: Claim) -> ClaimText:
        """The statement of a claim."""
        return cls(
            id=claim.id,
            paper=claim.paper,
            title=claim.title,
            source=claim.source,
            statement=claim.statement,
            tier=claim.tier,
            scope=claim.scope,
            recorded=claim.recorded,
            unit=claim.unit,
        )


@dataclass(frozen=True)
class FalsifierResult:
    """What the sabotaged variant did."""

    description: str
    """What was sabotaged."""
    verdict: Verdict
    """What its interval, or its deviation, says of the claim."""
    estimate: float
    interval: Bounds | None


@dataclass(frozen=True)
class Reading:
    """Another number read of the same runs, without a verdict; NaN and `None` where it has no interval."""

    estimand: str
    estimate: float
    interval: Bounds | None


@dataclass(frozen=True)
class NullResult:
    """The arms without a reward signal."""

    setting: Mapping[str, str]
    """What replaced the claim's setting."""
    reading: Reading


@dataclass(frozen=True)
class WaitingTimes:
    """What the seeds of one arm saw of an event, in rollouts."""

    events: int
    """Seeds that saw it."""
    seeds: int
    median: float
    """Kaplan-Meier's; infinite where half of the seeds never saw it."""
    median_interval: Bounds
    restricted_mean: float
    """Mean of min(time, horizon)."""
    horizon: float


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """What a run of a claim found."""

    claim: ClaimText
    """What was judged."""
    kind: Literal["exact", "statistical"]
    verdict: ClaimVerdict
    """What came out."""
    reason: str
    """The verdict in a sentence."""
    estimate: float
    """Of the estimand, in the claim's unit; the largest deviation of an exact claim."""
    interval: Bounds | None
    """`None` of an exact claim, and where there is none."""
    level: float | None
    """Coverage of the interval; `None` of an exact claim."""
    threshold: float
    """Smallest effect of interest, or the tolerance of an exact claim."""
    direction: str
    """As of the claim; `identity` of an exact one."""
    estimand: str
    """What was estimated, in words."""
    seeds: int | None
    """`None` of an exact claim."""
    seeds_needed: int | None
    """Seeds in all that would settle it; `None` where nothing is missing or none would."""
    falsifier: FalsifierResult
    """What the sabotaged variant did."""
    notes: tuple[str, ...]
    """The claim's, and what this run has to add."""
    protocol_hash: str
    """Of everything that was fixed before the run."""
    setting: Mapping[str, str] = field(default_factory=dict)
    """Of the arms, with the learning rates that were chosen."""
    seconds: float = math.nan
    """How long it took; NaN where nobody looked."""
    reproduce: str = ""
    """The command that gives the same numbers."""
    null: NullResult | None = None
    """Beside a claim about entropy."""
    controls: tuple[Reading, ...] = ()
    """Other readings of the same runs."""
    event_times: Mapping[str, WaitingTimes] | None = None
    """Of a claim about waiting times, per arm."""
    trend_p_value: float | None = None
    """Page's test of a claim about an order: whether a trend is visible at all, where the verdict asks every step."""
    p_value: float | None = None
    """One-sided, consistent with the interval; adjusted over a whole run by `analysis.verify`."""
    curves: tuple[Figure, ...] = ()
    """Metrics of the arms over the rollouts, waiting times, and the sensitivity to a tuned learning rate."""
    per_seed: tuple[float | tuple[float, ...], ...] = ()
    """The estimand of every seed, so that anyone can recompute the interval; NaN where it has no value."""
    record: str | None = None
    """The recorded run it was judged on, where rollouts take the place of seeds; `None`: the project's own runs."""

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one on record, or settles what the record leaves open.

        The record is inconclusive where other master seeds disagree or none of them settles the claim, so that a single
        run which does is no contradiction. A falsifier that passes and a mechanism that never acts always are.
        """
        settled = self.claim.recorded == "inconclusive" and self.verdict in ("reproduced", "refuted")
        return settled or self.verdict == self.claim.recorded

    def to_json(self) -> dict[str, Any]:
        """The row of `results.json`; a missing number is null."""
        null, about = self.null, self.claim
        row = {
            "id": about.id,
            "paper": about.paper,
            "title": about.title,
            "source": about.source,
            "statement": about.statement,
            "kind": self.kind,
            "tier": about.tier,
            "scope": about.scope,
            "setting": self.setting,
            "verdict": self.verdict,
            "recorded": about.recorded,
            "reason": self.reason,
            "estimate": self.estimate,
            "interval": self.interval,
            "level": self.level,
            "threshold": self.threshold,
            "direction": self.direction,
            "unit": about.unit,
            "estimand": self.estimand,
            "seeds": self.seeds,
            "seeds_needed": self.seeds_needed,
            "seconds": self.seconds,
            "falsifier": asdict(self.falsifier),
            "notes": self.notes,
            "protocol_hash": self.protocol_hash,
            "reproduce": self.reproduce,
            "null": None if null is None else {"setting": null.setting, **asdict(null.reading)},
            "controls": [asdict(reading) for reading in self.controls],
            "event_times": None
            if self.event_times is None
            else {arm: asdict(times) for arm, times in self.event_times.items()},
            "trend_p_value": self.trend_p_value,
            "p_value": self.p_value,
            "curves": self.curves,
            "per_seed": self.per_seed,
        } | ({} if self.record is None else {"record": self.record})
        return {key: missing_as_null(value) for key, value in row.items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ClaimResult:
        """The result that `to_json` wrote; null is NaN where a number belongs."""
        null, events = row["null"], row["event_times"]
        return cls(
            claim=ClaimText(**{item.name: row[item.name] for item in fields(ClaimText)}),
            kind=row["kind"],
            verdict=row["verdict"],
            reason=row["reason"],
            estimate=_number(row["estimate"]),
            interval=_bounds(row["interval"]),
            level=row["level"],
            threshold=row["threshold"],
            direction=row["direction"],
            estimand=row["estimand"],
            seeds=row["seeds"],
            seeds_needed=row["seeds_needed"],
            falsifier=_falsifier(row["falsifier"]),
            notes=tuple(row["notes"]),
            protocol_hash=row["protocol_hash"],
            setting=row["setting"],
            seconds=_number(row["seconds"]),
            reproduce=row["reproduce"],
            null=None if null is None else NullResult(null["setting"], _reading(null)),
            controls=tuple(_reading(control) for control in row["controls"]),
            event_times=None if events is None else {arm: _waiting(times) for arm, times in events.items()},
            trend_p_value=row["trend_p_value"],
            p_value=row["p_value"],
            curves=tuple(_figure(drawn) for drawn in row["curves"]),
            per_seed=tuple(
                tuple(_numbers(value)) if isinstance(value, list) else _number(value) for value in row["per_seed"]
            ),
            record=row.get("record"),
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [_number(value) for value in values]


def _bounds(bounds: Sequence[float | None] | None) -> Bounds | None:
    return None if bounds is None else (_number(bounds[0]), _number(bounds[1]))


def _reading(row: Mapping[str, Any]) -> Reading:
    return Reading(row["estimand"], _number(row["estimate"]), _bounds(row["interval"]))


def _falsifier(row: Mapping[str, Any]) -> FalsifierResult:
    return FalsifierResult(row["description"], row["verdict"], _number(row["estimate"]), _bounds(row["interval"]))


def _waiting(row: Mapping[str, Any]) -> WaitingTimes:
    low, high = _numbers(row["median_interval"])
    return WaitingTimes(
        events=row["events"],
        seeds=row["seeds"],
        median=_number(row["median"]),
        median_interval=(low, high),
        restricted_mean=_number(row["restricted_mean"]),
        horizon=row["horizon"],
    )


def _figure(row: Mapping[str, Any]) -> Figure:
    return Figure(
        title=row["title"],
        x_label=row["x_label"],
        y_label=row["y_label"],
        series=[
            Series(
                label=drawn["label"],
                x=drawn["x"],
                mean=_numbers(drawn["mean"]),
                low=_numbers(drawn["low"]),
                high=_numbers(drawn["high"]),
            )
            for drawn in row["series"]
        ],
    )
