"""Rewards that never change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule

__all__ = ["REWARD_CONSTANT"]


def _check(case: Case) -> Iterator[Finding]:
    found = case.finite("reward/mean")
    if found is not None and len(found) >= 8:
        value = float(found.values[-1])
        same = (found.values == value) & (found.low == value) & (found.high == value)
        n = len(found)
        run = n if same.all() else n - 1 - int(np.flatnonzero(~same)[-1])
        split = case.has("group/too_hard_fraction", "group/too_easy_fraction")
        if run == n:
            yield REWARD_CONSTANT.finding(
                "warning" if split else "problem",
                f"{found.key} is {value:g} in all {n} rows, to the last digit: what is graded does not depend on what "
                "is written.",
                evidence=case.evidence("reward/mean"),
                since=float(found.steps[0]),
            )
            return
        saturated = value >= found.values.max() and case.has("group/zero_variance_fraction")
        if run >= max(10, 0.2 * n) and not saturated:
            since = float(found.steps[n - run])
            yield REWARD_CONSTANT.finding(
                "problem",
                f"{found.key} is {value:g} in the last {run} of {n} rows, to the last digit, and varied before step "
                f"{since:g}.",
                evidence=case.evidence("reward/mean"),
                since=since,
            )
            return
    for function in case.log.functions:
        values = function.finite().values
        if len(values) >= 8 and len(case.log.functions) > 1 and np.ptp(values) == 0 and values[0] <= 0:
            yield REWARD_CONSTANT.finding(
                "note",
                f"{function.key} is {values[0]:g} in all {len(values)} rows: that reward function never pays.",
                title="One of the reward functions never changes",
                evidence=[],
                since=float(function.steps[0]),
            )


REWARD_CONSTANT = rule(
    Rule(
        id="reward-constant",
        title="The reward is the same in every step",
        mechanism="A grader that fails returns one value for everything: a wrong format, a missing extra, a column "
        "that "
        "is not found. Equal rewards have no advantage, so nothing is learned.",
        reads=(("reward/mean", "reward/function"),),
        threshold="the mean of a batch of sampled responses repeats to the last digit in 8 rows and all, or in the "
        "last "
        "fifth: for a grader that looks at them that does not happen by chance",
        remedy="Grade a handful of responses by hand and compare; log the share of responses whose answer was read.",
        silent="where rewards are not logged, and where they end at their largest value with dead groups logged, which "
        "is no-signal",
        check=_check,
        rank=12,
    )
)
