"""Claims about tokens, judged on a recorded run: one number per rollout, the claim's falsifier, the shared rules."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.judging.claim import Claim, Statistic, StatisticalClaim, claim_names, get_claim
from analysis.judging.estimands import Estimand
from analysis.judging.on_record import TRAINED, OnRecord, TokenMeasure
from analysis.judging.result import ClaimResult, ClaimText, ClaimVerdict, FalsifierResult, Reading
from analysis.judging.values import judge_values, one_sided_p_value
from analysis.replay.walk import Replay, replay
from analysis.report import write_report
from analysis.statistics import (
    VERDICT_LEVEL,
    Direction,
    Judgement,
    block_length,
    block_means,
    judge_identity,
)
from analysis.trajectories import Figure, Series, Trajectories
from analysis.verify import adjusted_p_values, write_results
from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives import make_objective
from testbed.output import fresh_folder
from testbed.records import Record, read_record
from testbed.simulation.run import environment_facts

__all__ = ["judge_record", "recordable", "select_recordable", "verify_record"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Rule:
    """What decides about the numbers of the rollouts."""

    estimand: Estimand
    direction: Direction
    threshold: float
    statistic: Statistic = "mean"
    level: float = VERDICT_LEVEL


@dataclass(frozen=True)
class _Found:
    """What one estimand says of the rollouts."""

    values: Array
    judged: Judgement
    block: int


def recordable() -> list[str]:
    """The claims that can be judged on a record, sorted."""
    return [name for name in claim_names() if get_claim(name).on_record is not None]


def select_recordable(names: Iterable[str]) -> list[str]:
    """The ids of the claims to judge: all that can be, or those of these ids and papers.

    Raises:
        UnknownNameError: a name is neither a claim nor a paper.
        ConfigError: a claim is not about tokens.
    """
    known, every = recordable(), claim_names()
    chosen: list[str] = []
    for name in names:
        found = [item for item in every if name in (item, item.split("/")[0])]
        if not found:
            raise UnknownNameError("claim or paper", name, {item.split("/")[0] for item in every} | set(every))
        here = [item for item in found if item in known]
        if not here:
            raise ConfigError(
                f"{name} is not about the tokens of a run and cannot be judged on a record; those that can: "
                f"{', '.join(known)}"
            )
        chosen += here
    return list(dict.fromkeys(chosen)) or known


def verify_record(
    path: str | Path, names: Sequence[str] = (), *, out: str | Path | None = None, command: str = ""
) -> tuple[Path, list[ClaimResult]]:
    """Judge claims on a record and write `results.json` and `report.html`.

    Args:
        path: the record's folder.
        names: see `select_recordable`.
        out: new folder; `None`: one below `runs/`.
        command: how this was started.

    Returns:
        The folder and one result per claim.

    Raises:
        StorageError: the folder is no record, or a damaged one.
        RunExistsError: `out` holds something.
    """
    chosen = select_recordable(names)
    started, clock = datetime.now(UTC), time.perf_counter()
    with fresh_folder(out, "verify") as folder:
        results = judge_record(path, chosen)
        facts = {
            "versions": environment_facts(),
            "record": str(path),
            "command": command,
            "date": started.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - clock,
        }
        adjusted = adjusted_p_values(results)
        rows = [result.to_json() | {"adjusted": adjusted.get(result.claim.id)} for result in results]
        write_results(folder, facts, rows)
        write_report(folder)
    return folder, results


def judge_record(path: str | Path, names: Sequence[str] = ()) -> list[ClaimResult]:
    """Judge claims on a record, in one walk through it.

    Args:
        path: the record's folder.
        names: see `select_recordable`.

    Raises:
        StorageError: the folder is no record, or a damaged one.
    """
    record = read_record(path)
    claims = [get_claim(name) for name in select_recordable(names)]
    missing = {claim.id: _missing(record, _of(claim)) for claim in claims}
    needed: dict[str, dict[str, TokenMeasure]] = {}
    for claim in claims:
        if missing[claim.id]:
            continue
        on = _of(claim)
        for text in (*on.arms.values(), *on.sabotaged.values()):
            needed.setdefault(_label(text, record), {}).update(on.measures)
    done = replay(path, list(needed), measures=needed) if needed else None
    return [
        _without(claim, record, missing[claim.id]) if missing[claim.id] or done is None else _judge(claim, done)
        for claim in claims
    ]


# -- one claim ---------------------------------------------------------------------------------------------------------


def _of(claim: Claim) -> OnRecord:
    assert claim.on_record is not None
    return claim.on_record


def _label(text: str, record: Record) -> str:
    return record.objective if text == TRAINED else make_objective(text).label()


def _missing(record: Record, on: OnRecord) -> str:
    """Why the record does not suffice, or an empty text."""
    texts = [*on.arms.values(), *on.sabotaged.values()]
    if TRAINED in texts and not record.objective:
        return "the record does not say which objective trained"
    needs = {column for text in texts for column in make_objective(_label(text, record)).needs} | set(on.reads)
    lacking = sorted(needs - set(record.columns))
    return f"the record has no {' and '.join(lacking)}" if lacking else ""


def _without(claim: Claim, record: Record, reason: str) -> ClaimResult:
    on = _of(claim)
    return replace(
        _result(claim, record, None),
        verdict="inconclusive",
        reason=f"{reason}; record a run whose batches carry what is missing",
        falsifier=FalsifierResult(on.sabotage or claim.falsifier.description, "inconclusive", math.nan, None),
    )


def _judge(claim: Claim, done: Replay) -> ClaimResult:
    on, record = _of(claim), done.record
    arms = {name: _trajectories(done, _label(text, record)) for name, text in on.arms.items()}
    sabotaged_arms = {name: _trajectories(done, _label(text, record)) for name, text in on.sabotaged.items()}
    rule = _rule(claim, on)
    own = _found(rule, on, rule.estimand.compute(arms))
    against = on.sabotaged_estimand or rule.estimand
    sabotaged = _found(replace(rule, estimand=against), on, against.compute(arms | sabotaged_arms))
    verdict, reason = _verdict(on, arms, own, sabotaged)
    return replace(
        _result(claim, record, done),
        verdict=verdict,
        reason=reason,
        estimate=own.judged.estimate,
        interval=_bounds(on, own.judged),
        seeds=None if on.tolerance is not None else len(own.values),
        seeds_needed=None if own.judged.seeds_needed is None else own.judged.seeds_needed * own.block,
        falsifier=FalsifierResult(
            on.sabotage or claim.falsifier.description,
            sabotaged.judged.verdict,
            sabotaged.judged.estimate,
            _bounds(on, sabotaged.judged),
        ),
        controls=tuple(_reading(item, arms) for item in on.readings),
        p_value=None if on.tolerance is not None else one_sided_p_value(rule, _blocks(own.values, own.block)),
        curves=(_figure(claim, on, own.values, next(iter(arms.values()))),),
        per_seed=tuple(own.values.tolist()),
    )


def _verdict(
    on: OnRecord, arms: Mapping[str, Trajectories], own: _Found, sabotaged: _Found
) -> tuple[ClaimVerdict, str]:
    for name, metric in on.acts:
        if not np.nanmax(arms[name][metric], initial=0.0) > 0:
            return "vacuous", f"{metric} of arm {name} was never above 0, so the mechanism under test did not act"
    if own.judged.verdict == "reproduced" and sabotaged.judged.verdict == "reproduced":
        # Of a toy the setting would be at fault; a run is as it is.
        return "inconclusive", "the sabotaged variant passes as well, so this run cannot tell true from false"
    return own.judged.verdict, _in_rollouts(own.judged.reason, own.block)


def _rule(claim: Claim, on: OnRecord) -> _Rule:
    statistical = claim if isinstance(claim, StatisticalClaim) else None
    estimand, direction = on.estimand, on.direction
    if statistical is not None:
        estimand, direction = estimand or statistical.estimand, direction or statistical.direction
    threshold = on.threshold
    if threshold is None:
        threshold = on.tolerance if statistical is None or on.tolerance is not None else statistical.threshold
    if estimand is None or threshold is None:
        raise ConfigError(
            f"claim {claim.id}: on_record has no estimand, threshold or tolerance; an exact claim has none"
        )
    return _Rule(estimand, direction or "less", threshold)


def _found(rule: _Rule, on: OnRecord, values: Array) -> _Found:
    known = values[~np.isnan(values)]
    if on.tolerance is not None:
        if not known.size:
            none = Judgement(
                "inconclusive", False, math.nan, math.nan, math.nan, math.nan, "none", 0, None,
                "no rollout has a value",
            )  # fmt: skip
            return _Found(values, none, 1)
        return _Found(values, judge_identity(float(np.abs(known).max()), on.tolerance), 1)
    block = block_length(known) if known.size else 1
    return _Found(values, judge_values(rule, _blocks(values, block)), block)


def _blocks(values: Array, block: int) -> Array:
    """Rollouts, or means of blocks of them; a rollout without a value makes none of its block."""
    return values if block == 1 else block_means(values, block)


def _in_rollouts(reason: str, block: int) -> str:
    unit = "rollout" if block == 1 else f"block of {block} rollouts"
    plural = "rollouts" if block == 1 else f"blocks of {block} rollouts"
    return re.sub(r"\bseed\b", unit, re.sub(r"\bseeds\b", plural, reason))


def _bounds(on: OnRecord, judged: Judgement) -> tuple[float, float] | None:
    return None if on.tolerance is not None or math.isnan(judged.low) else (judged.low, judged.high)


def _reading(estimand: Estimand, arms: Mapping[str, Trajectories]) -> Reading:
    values = estimand.compute(arms)
    found = _found(_Rule(estimand, "greater", 0.0), _PLAIN, values)
    bounds = None if math.isnan(found.judged.low) else (found.judged.low, found.judged.high)
    known = values[~np.isnan(values)]
    return Reading(estimand.description, float(known.mean()) if known.size else math.nan, bounds)


_PLAIN = OnRecord(arms={"ppo": "ppo"}, sabotaged={"ppo": "reinforce"})


# -- the run as trajectories -------------------------------------------------------------------------------------------


def _trajectories(done: Replay, label: str) -> Trajectories:
    """What an objective did: updates on a rollout in the place of steps, rollouts in the place of seeds.

    Replicas of a toy are averaged; an update that a rollout lacks is missing.
    """
    rows = done.table[done.table["objective"] == label].drop(columns=["objective", "replica"])
    means = rows.groupby(["update", "step"]).mean()
    updates = means.index.unique("update").tolist()
    # Of a run with one update a rollout nothing comes after the first; a second one without data says so.
    updates += [updates[0] + 1] if len(updates) == 1 else []
    grid = pd.MultiIndex.from_product([updates, means.index.unique("step")])
    whole = means.reindex(grid).rename_axis(["update", "step"])
    rollouts = done.rollouts.drop(columns="replica").groupby("step").mean()
    whole = whole.join(rollouts, on="step").reset_index()
    whole["rollout"] = whole["step"].astype(float)
    return Trajectories(whole.rename(columns={"step": "seed"}).rename(columns={"update": "step"}))


# -- what is said ------------------------------------------------------------------------------------------------------


def _result(claim: Claim, record: Record, done: Replay | None) -> ClaimResult:
    on = _of(claim)
    trained = f", trained with {record.objective}" if record.objective else ""
    size = ""
    if done is not None:
        rollouts = done.table["step"].nunique()
        size = f", {rollouts} rollout{'s' if rollouts != 1 else ''}, {done.tokens:,} token-updates"
    text = replace(
        ClaimText.of(claim),
        statement=on.statement or claim.statement,
        scope=f"This run: {record.path}{size}{trained}. The unit is the rollout; what the claim's own setting varies "
        "is not varied here.",
        unit=on.unit or claim.unit,
        recorded=None,
    )
    rule = _rule(claim, on)
    return ClaimResult(
        claim=text,
        kind="statistical" if on.tolerance is None else "exact",
        verdict="inconclusive",
        reason="",
        estimate=math.nan,
        interval=None,
        level=None if on.tolerance is not None else VERDICT_LEVEL,
        threshold=rule.threshold,
        direction="identity" if on.tolerance is not None else rule.direction,
        estimand=rule.estimand.description,
        seeds=None,
        seeds_needed=None,
        falsifier=FalsifierResult(claim.falsifier.description, "inconclusive", math.nan, None),
        notes=claim.notes,
        protocol_hash=_hash(claim, on, rule, record),
        setting={f"arm {name}": _label(text, record) or text for name, text in on.arms.items()},
        reproduce=f"testbed verify {claim.id} --on {record.path}",
        record=str(record.path),
    )


def _hash(claim: Claim, on: OnRecord, rule: _Rule, record: Record) -> str:
    content = [
        claim.id, on.statement, dict(on.arms), dict(on.sabotaged), rule.estimand.description, rule.direction,
        rule.threshold, on.tolerance, record.manifest,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _figure(claim: Claim, on: OnRecord, values: Array, run: Trajectories) -> Figure:
    """The estimand over the run."""
    rollouts = run["rollout"][0][: len(values)]
    known = ~np.isnan(values)
    nothing = [math.nan] * int(known.sum())
    series = Series(
        label="this run", x=rollouts[known].tolist(), mean=values[known].tolist(), low=nothing, high=nothing
    )
    return Figure(title="estimand", x_label="rollout", y_label=on.unit or claim.unit, series=[series])
