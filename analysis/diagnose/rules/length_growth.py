"""Responses grow without getting better."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown

__all__ = ["LENGTH_GROWTH"]


def _check(case: Case) -> Iterator[Finding]:
    window = case.window("length/mean")
    if window is None or window.first <= 0:
        return
    grows = window.correlation > 0.5 and (window.change is not None or window.correlation >= 0.9)
    factor = window.last / window.first
    if not grows or factor < 1.5:
        return
    reward = case.window("reward/mean")
    better = reward is not None and reward.correlation > 0.3 and reward.last > reward.first
    if better and factor < 3:
        return
    key = case.key("length/mean")
    statement = f"{key} grew from {shown(window.first)} to {shown(window.last)} tokens, {shown(factor)} times"
    if reward is None:
        statement += "; rewards are not logged, so whether they paid for it cannot be said"
    elif better:
        statement += f", while rewards rose from {shown(reward.first)} to {shown(reward.last)}"
    else:
        statement += f", and rewards did not rise ({shown(reward.first)} to {shown(reward.last)})"
    right, wrong = case.recent("length/right_mean"), case.recent("length/wrong_mean")
    if wrong > 1.3 * right:
        statement += f"; wrong responses are {shown(wrong / right)} times as long as right ones"
    level = "note" if better or reward is None else "problem" if factor >= 3 else "warning"
    yield LENGTH_GROWTH.finding(
        level,
        f"{statement}.",
        evidence=case.evidence("length/mean", "reward/mean", "length/truncated_fraction"),
        onset=window.change,
        since=window.began(case.log.series["length/mean"]),
    )


LENGTH_GROWTH = rule(
    Rule(
        id="length-growth",
        title="Responses grow without better rewards",
        mechanism="Dividing a response's loss by its own length makes each token of a long wrong response count less: "
        "among wrong ones long wins. Repetition and an end token that never gets credit do the same.",
        reads=(("length/mean",),),
        threshold="the recent median is at least 1.5 times the first while rewards do not rise (warning; from 3 times "
        "on "
        "a problem); with rising rewards only from 3 times on, as a note",
        remedy="Average over all tokens of the batch or divide by a constant (DAPO, Dr. GRPO), punish overlong "
        "responses, and look at a few of the longest.",
        silent="where lengths are not logged, with fewer than 8 rows, and where rewards rise with them",
        check=_check,
        rank=35,
        settings=("reduction",),
    )
)
