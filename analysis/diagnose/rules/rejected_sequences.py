"""Responses left out because of their weight."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, ends, lasting, rule, shown
from analysis.diagnose.series import Series

__all__ = ["REJECTED_SEQUENCES"]

_WARNING, _PROBLEM = 0.25, 0.5


def _rejected(case: Case) -> tuple[Series, str] | None:
    found = case.finite("sampler/rejected_fraction")
    if found is not None:
        return found, f"{found.key} is"
    mean, lowest = case.finite("sampler/weight_mean"), case.finite("sampler/weight_min")
    if mean is None or lowest is None:
        return None
    width = ends(len(lowest))
    if (lowest.values[-width:] <= 0).mean() < 0.5:
        return None
    if str(case.setting("correction") or "").lower() in {"token_truncate", "token", "sequence_truncate"}:
        return None
    missing = Series.of(f"1 - {mean.key}", mean.steps, np.clip(1 - mean.values, 0, 1))
    return (
        missing,
        f"{lowest.key} is 0 and {mean.key} {shown(float(np.median(mean.values[-width:])))}: rejected are about",
    )


def _check(case: Case) -> Iterator[Finding]:
    rejected = _rejected(case)
    if rejected is None or len(rejected[0]) < 3:
        return
    series, words = rejected
    recent = float(np.median(series.values[-ends(len(series)) :]))
    if recent < _WARNING:
        return
    difference = case.recent("sampler/log_abs_mean")
    statement = f"{words} {shown(100 * recent)} %."
    if difference == difference:
        statement += (
            f" {case.key('sampler/log_abs_mean')} is only {shown(difference)}: token by token both agree, and it is "
            "the "
            "product over a long response that leaves the bounds."
            if difference < 0.05
            else f" {case.key('sampler/log_abs_mean')} is {shown(difference)}: sampler and trainer disagree as well."
        )
    yield REJECTED_SEQUENCES.finding(
        "problem" if recent >= _PROBLEM else "warning",
        statement,
        evidence=case.evidence(
            "sampler/rejected_fraction", "sampler/weight_mean", "sampler/weight_min", "sampler/log_abs_mean"
        ),
        since=lasting(series, _WARNING),
    )


REJECTED_SEQUENCES = rule(
    Rule(
        id="rejected-sequences",
        title="Most responses are rejected for their weight",
        mechanism="A correction by sequence multiplies the quotients of all its tokens; over a thousand tokens tiny "
        "differences become a factor that no fixed bound suits, and the response is given weight 0. Long responses are "
        "rejected first.",
        reads=(("sampler/rejected_fraction", "sampler/weight_mean"),),
        threshold="a recent share of at least 25 % (warning) or 50 % (problem); where it is not logged, a mean weight "
        "that low beside weights of exactly 0",
        remedy="Correct by token (TRL: vllm_importance_sampling_mode=token_truncate), by the geometric mean, or widen "
        "the bounds; and lower the mismatch itself.",
        silent="where neither a rejected share nor mean and smallest weight are logged",
        check=_check,
        rank=11,
        settings=("correction",),
    )
)
