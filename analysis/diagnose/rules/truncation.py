"""Responses cut off at the length limit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.onset import change_point
from analysis.diagnose.rule import Case, Finding, Rule, ends, lasting, rule, shown

__all__ = ["TRUNCATION"]

_WARNING, _PROBLEM = 0.25, 0.75


def _check(case: Case) -> Iterator[Finding]:
    found = case.finite("length/truncated_fraction")
    if found is None or len(found) < 3:
        return
    recent = float(np.median(found.values[-ends(len(found)) :]))
    if recent < _WARNING:
        return
    limit, longest = case.number("max_length"), case.finite("length/max")
    if (
        case.engine.name in {"verl", "trinity"}
        and limit is not None
        and longest is not None
        and float(longest.high.max()) < limit
    ):
        # That share is of responses as long as the batch's longest; none is as long as the limit.
        return
    statement = f"{shown(100 * recent)} % of the recent responses are cut off ({found.key})."
    terminated = case.recent("length/terminated_mean")
    if terminated == 0:
        statement += f" None ends by itself: {case.key('length/terminated_mean')} is 0."
    needs = []
    if case.engine.name in {"verl", "trinity"} and (limit is None or longest is None):
        statement += " In verl's newest trainer the share counts responses as long as the batch's longest."
        needs = case.takes("max_length")
    masked = case.setting("mask_truncated")
    if masked is not None and str(masked).lower() == "true":
        statement += " They are left out of the loss, so only the others teach anything."
    since = lasting(found, _WARNING)
    change = change_point(found.steps, found.values)
    yield TRUNCATION.finding(
        "problem" if recent >= _PROBLEM else "warning",
        statement,
        evidence=case.evidence("length/truncated_fraction", "length/mean", "reward/mean"),
        since=since,
        onset=change if since > found.steps[0] else None,
        needs=needs,
    )


TRUNCATION = rule(
    Rule(
        id="truncation",
        title="Responses are cut off",
        mechanism="A response without its end has no answer to grade: it is punished for its length, whatever it says, "
        "or "
        "left out. A missing end-of-sequence token or a wrong template does the same to all of them.",
        reads=(("length/truncated_fraction",),),
        threshold="recent share of at least 25 % (warning: a quarter of the batch is graded on its length) or 75 % "
        "(problem)",
        remedy="Raise the limit, check that the model can emit its end token under this template, or leave truncated "
        "responses out of the loss (mask_truncated_completions, overlong filtering).",
        silent="where truncation is not logged; prompts that are cut off are another key and no matter of this rule; "
        "in "
        "verl, where the longest response is shorter than the limit",
        check=_check,
        rank=18,
        settings=("max_length", "mask_truncated"),
    )
)
