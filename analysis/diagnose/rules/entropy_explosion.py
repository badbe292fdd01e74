"""Entropy that rises without end."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown
from analysis.diagnose.rules._entropy import CLASSES, cause

__all__ = ["ENTROPY_EXPLOSION"]


def _check(case: Case) -> Iterator[Finding]:
    window, found = case.window("entropy/mean"), case.finite("entropy/mean")
    if window is None or found is None or window.first <= 0:
        return
    rises = window.correlation > 0 and (window.change is not None or window.correlation >= 0.8)
    factor, gained = window.last / window.first, window.last - window.first
    if not rises or factor < 2 or gained < 0.2:
        return
    severe = (factor >= 3 and gained >= 0.5) or gained >= 2
    said, remedy, needs = cause(case, falling=False)
    statement = (
        f"{found.key} rose from {shown(window.first)} to {shown(window.last)} nats, {shown(factor)} times as much."
    )
    yield ENTROPY_EXPLOSION.finding(
        "problem" if severe else "warning",
        f"{statement} {said}." if said else statement,
        remedy=f"{remedy}. {ENTROPY_EXPLOSION.remedy}" if remedy else ENTROPY_EXPLOSION.remedy,
        evidence=case.evidence("entropy/mean", "clip/low_fraction", "clip/high_fraction", "reward/mean"),
        onset=window.change,
        since=window.began(found),
        needs=needs,
        # A policy that draws at random neither ends its responses nor solves anything, nor stays near the old one.
        explains=("truncation", "length-growth", "no-signal", "divergence-spike"),
        extra={"cause": said},
    )


ENTROPY_EXPLOSION = rule(
    Rule(
        id="entropy-explosion",
        title="Entropy explodes",
        mechanism="Negative advantages push probable tokens down and spread their mass over thousands of others; noise "
        f"alone raises the entropy of a peaked policy. {CLASSES}",
        reads=(("entropy/mean",),),
        threshold="the recent median is at least twice the first and 0.2 nats above it (warning), or three times and "
        "0.5 nats, or 2 nats above (problem), and the rise is a change by the change-point test",
        remedy="Lower the step size, remove an entropy bonus, mask responses that are cut off, and look for mismatch "
        "between sampler and trainer.",
        silent="where entropy is not logged, and with fewer than 8 rows",
        check=_check,
        rank=41,
        settings=("clip_low", "clip_high", "entropy_coefficient"),
    )
)
