"""Entropy that falls to nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis.diagnose.onset import floor_crossing
from analysis.diagnose.rule import Case, Finding, Rule, rule, shown
from analysis.diagnose.rules._entropy import CLASSES, cause

__all__ = ["ENTROPY_COLLAPSE"]

_WARNING, _PROBLEM, _ABSOLUTE = 0.3, 0.1, 0.05


def _check(case: Case) -> Iterator[Finding]:
    window, found = case.window("entropy/mean"), case.finite("entropy/mean")
    if window is None or found is None or window.first <= 0.01:
        return
    falls = window.correlation < 0 and (window.change is not None or window.correlation <= -0.8)
    share = window.last / window.first
    if not falls or share > _WARNING:
        return
    gone = share <= _PROBLEM or (window.last < _ABSOLUTE and share <= 0.25)
    statement = (
        f"{found.key} fell from {shown(window.first)} to {shown(window.last)} nats, {shown(100 * share)} % of it."
    )
    floor = _PROBLEM * window.first
    crossing = floor_crossing(found.steps, found.values, floor)
    extra = {}
    if crossing is not None and not gone:
        end = "no upper limit" if math.isinf(crossing.high) else f"{crossing.high:,.0f}"
        statement += (
            f" At this rate it reaches {shown(floor)} nats, a tenth of its start, in {crossing.low:,.0f} to {end} more "
            f"steps (90 % interval, {crossing.shape} fall)."
        )
        extra["floor"] = {"floor": floor, "steps_low": crossing.low, "steps_high": crossing.high}
    said, remedy, needs = cause(case, falling=True)
    if case.log.keys["entropy/mean"].estimate == "sampled":
        statement += " It is estimated from sampled tokens, which also moves with temperature and truncation."
    yield ENTROPY_COLLAPSE.finding(
        "problem" if gone else "warning",
        f"{statement} {said}." if said else statement,
        remedy=f"{remedy}. {ENTROPY_COLLAPSE.remedy}" if remedy else ENTROPY_COLLAPSE.remedy,
        evidence=case.evidence("entropy/mean", "clip/high_fraction", "clip/low_fraction", "reward/mean", mark=floor),
        onset=window.change,
        since=window.began(found),
        needs=needs,
        # A policy left with one response repeats it in all of a group, and never ends it if it has no end.
        explains=("truncation", "no-signal"),
        extra=extra | {"cause": said},
    )


ENTROPY_COLLAPSE = rule(
    Rule(
        id="entropy-collapse",
        title="Entropy collapses",
        mechanism="Every update on a probable response with A > 0 lowers entropy, by the covariance of log-probability "
        f"and gated advantage. {CLASSES}",
        reads=(("entropy/mean",),),
        threshold="the recent median is at most 30 % of the first (warning) or 10 %, or under 0.05 nats and a quarter "
        "(problem: samples of a group hardly differ any more), and the fall is a change by the change-point test",
        remedy="Lower the step size or the updates per rollout, use an objective that keeps the gradient of improbable "
        "tokens (CE-GPPO, DCPO), or a small reference penalty.",
        silent="where entropy is not logged, with fewer than 8 rows, and when it started below 0.01 nats",
        check=_check,
        rank=40,
        settings=("clip_low", "clip_high"),
    )
)
