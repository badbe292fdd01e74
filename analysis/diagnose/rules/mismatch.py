"""Sampler and trainer disagree from the start."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, ends, lasting, rule, shown
from analysis.diagnose.rules._mismatch import PROBLEM, SCALES, WARNING, growth, measures

__all__ = ["MISMATCH"]


def _check(case: Case) -> Iterator[Finding]:
    levels = []
    for name, item, scaled in measures(case):
        if len(scaled) < 3:
            continue
        width = ends(len(scaled))
        grown = growth(scaled)
        level = float(np.median(scaled.values[-width:])) if grown is None else grown.first
        levels.append((level, name, item, scaled))
    if not levels:
        return
    level, name, item, scaled = max(levels, key=lambda entry: entry[0])
    if level < WARNING:
        return
    yield MISMATCH.finding(
        "problem" if level >= PROBLEM else "warning",
        f"{item.key} is {shown(case.recent(name))}: the log-probabilities of sampler and trainer differ by a standard "
        f"deviation of about {shown(level)} nats.",
        evidence=case.evidence(name, *(other for other in SCALES if other != name))[:3],
        since=lasting(scaled, WARNING),
    )


MISMATCH = rule(
    Rule(
        id="mismatch",
        title="Sampler and trainer disagree",
        mechanism="The responses were drawn by another distribution than the one whose gradient is taken: other "
        "kernels, "
        "other precision, other weights, another chat template or temperature. Without a correction the gradient is "
        "biased.",
        reads=(tuple(SCALES),),
        threshold="s, the standard deviation of the log-ratio, is at least 0.0625 (warning: mean |log-ratio| 0.05, "
        "NeMo-RL's own limit of 1.05) or 0.15 (problem: 0.12; k3 0.011; |difference of probabilities| 0.06)",
        remedy="Compare the log-probabilities of one response in both engines; check temperature, template, precision "
        "and weight synchronisation, above all after a resume; correct by importance weights.",
        silent="where no measure of the mismatch is logged",
        check=_check,
        rank=15,
    )
)
