"""Sampler and trainer drift apart."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown, window_of
from analysis.diagnose.rules._mismatch import PROBLEM, SCALES, growth, measures

__all__ = ["MISMATCH_GROWING"]


def _check(case: Case) -> Iterator[Finding]:
    growing = [(window, name, item) for name, item, scaled in measures(case) if (window := growth(scaled)) is not None]
    if not growing:
        return
    window, name, item = max(growing, key=lambda entry: entry[0].last / max(entry[0].first, 1e-3))
    raw = window_of(item)
    yield MISMATCH_GROWING.finding(
        "problem" if window.last >= PROBLEM else "warning",
        f"{item.key} went from {shown(raw.first)} to {shown(raw.last)}: the log-probabilities of sampler and trainer "
        f"differ by a standard deviation of about {shown(window.last)} nats, "
        f"{shown(window.last / max(window.first, 1e-4))} "
        "times as much as at the start.",
        evidence=case.evidence(name, *(other for other in SCALES if other != name))[:3],
        onset=window.change,
        since=window.began(item),
    )


MISMATCH_GROWING = rule(
    Rule(
        id="mismatch-growing",
        title="The mismatch between sampler and trainer grows",
        mechanism="Inference and training engines round differently; as the policy gets confident in long responses, "
        "or "
        "when weights are synchronised wrongly or too seldom, the difference grows and the gradient gets a bias that "
        "grows with it.",
        reads=(tuple(SCALES),),
        threshold="on the common scale s (standard deviation of the log-ratio) the recent median is at least twice the "
        "first and above 0.02, and that is a change; a problem from 0.15 on",
        remedy="Check that weights reach the sampler after every update, compare log-probabilities of one response in "
        "both, use the same precision in both (float16 has more digits than bfloat16), correct by importance weights.",
        silent="where no measure of the mismatch is logged, and with fewer than 8 rows",
        check=_check,
        rank=14,
    )
)
