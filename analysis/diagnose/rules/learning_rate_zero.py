"""A step size of 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule

__all__ = ["LEARNING_RATE_ZERO"]


def _check(case: Case) -> Iterator[Finding]:
    found = case.finite("learning_rate")
    if found is None or len(found) < 5:
        return
    zero = (found.values == 0) & (found.high == 0)
    n = len(found)
    if zero.all():
        yield LEARNING_RATE_ZERO.finding(
            "problem",
            f"{found.key} is 0 in all {n} rows: nothing is learned.",
            evidence=case.evidence("learning_rate"),
            since=float(found.steps[0]),
        )
        return
    tail = n - 1 - int(np.flatnonzero(~zero)[-1])
    lead = int(np.flatnonzero(~zero)[0])
    if tail >= 3 and tail >= 0.03 * n:
        since = float(found.steps[n - tail])
        yield LEARNING_RATE_ZERO.finding(
            "problem" if tail >= 0.1 * n else "warning",
            f"{found.key} is 0 in the last {tail} of {n} rows, from step {since:g} on: the schedule has ended and the "
            "run goes on without learning.",
            evidence=case.evidence("learning_rate"),
            since=since,
        )
    elif lead >= 5 and lead >= 0.1 * n:
        yield LEARNING_RATE_ZERO.finding(
            "warning",
            f"{found.key} is 0 in the first {lead} of {n} rows: warm-up does not begin before step "
            f"{found.steps[lead]:g}.",
            evidence=case.evidence("learning_rate"),
            since=float(found.steps[0]),
        )
    elif zero[1:-1].sum() >= max(3, 0.05 * n):
        since = float(found.steps[np.flatnonzero(zero)[0]])
        yield LEARNING_RATE_ZERO.finding(
            "warning",
            f"{found.key} is 0 in {int(zero.sum())} of {n} rows, first at step {since:g}.",
            evidence=case.evidence("learning_rate"),
            since=since,
        )


LEARNING_RATE_ZERO = rule(
    Rule(
        id="learning-rate-zero",
        title="The learning rate is 0",
        mechanism="A schedule that was made for fewer steps has ended, a warm-up in fractions was rounded, or the rate "
        "was never set; rewards go on to wander with the prompts.",
        reads=(("learning_rate",),),
        threshold="exactly 0 in all rows, or in the last 10 % (problem) or 3 % of them (warning); the single 0 at the "
        "end of a linear schedule is none",
        remedy="Make the schedule as long as the run (max_steps, total_training_steps), or use a constant one.",
        silent="where the learning rate is not logged",
        check=_check,
        rank=3,
    )
)
