"""Training rewards rise and the evaluation does not follow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown

__all__ = ["REWARD_AGAINST_EVALUATION"]


def _check(case: Case) -> Iterator[Finding]:
    held, reward = case.finite("evaluation/reward"), case.window("reward/mean")
    if held is None or reward is None or len(held) < 5:
        return
    rises = reward.correlation > 0.5 and (reward.change is not None or reward.correlation > 0.8)
    gained = reward.last - reward.first
    if not rises or gained <= 0.02 * max(abs(reward.first), abs(reward.last)):
        return
    third = max(2, len(held) // 3)
    values = held.values
    smooth = np.convolve(values, np.ones(2) / 2, mode="valid") if len(values) >= 6 else values
    best, end = float(smooth.max()), float(np.mean(values[-third:]))
    noise = float(np.std(np.diff(values))) / np.sqrt(2)
    lost = best - end
    place = int(np.argmax(smooth))
    falls = lost > max(3 * noise / np.sqrt(third), 0.15 * abs(gained), 0.02 * abs(best)) and place < len(values) - third
    if not falls:
        return
    since = float(held.steps[min(place + 1, len(values) - 1)])
    yield REWARD_AGAINST_EVALUATION.finding(
        "problem" if lost >= 0.3 * abs(gained) else "warning",
        f"{case.key('reward/mean')} rose from {shown(reward.first)} to {shown(reward.last)} while {held.key} fell from "
        f"{shown(best)} to {shown(end)}, from step {since:g} on.",
        evidence=case.evidence("reward/mean", "evaluation/reward", "length/mean"),
        since=since,
    )


REWARD_AGAINST_EVALUATION = rule(
    Rule(
        id="reward-against-evaluation",
        title="Training rewards rise while the evaluation falls",
        mechanism="The policy has found what the reward pays for and the evaluation does not: a hole in the grader, a "
        "format, or the training problems themselves.",
        reads=(("reward/mean",), ("evaluation/reward",)),
        threshold="training rewards rise, and the last third of at least 5 evaluations is below the best by three "
        "standard "
        "errors and 15 % of the rise; a problem from 30 % of it on",
        remedy="Read responses with the highest reward; keep the checkpoint of the best evaluation; grade more "
        "strictly.",
        silent="where no evaluation is logged, or fewer than five",
        check=_check,
        rank=30,
    )
)
