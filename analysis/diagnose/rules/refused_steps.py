"""Updates that were not taken."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown

__all__ = ["REFUSED_STEPS"]


def _check(case: Case) -> Iterator[Finding]:
    found = case.finite("update/refused")
    if found is None or not (found.high > 0).any():
        return
    share = float(np.average(found.values, weights=found.counts))
    first = float(found.steps[np.flatnonzero(found.high > 0)[0]])
    yield REFUSED_STEPS.finding(
        "problem" if share >= 0.1 or case.recent("update/refused") >= 0.5 else "warning",
        f"{shown(100 * share)} % of the updates were refused because their gradient was not finite, the first at step "
        f"{first:g}.",
        evidence=case.evidence("update/refused", "gradient/norm", "loss"),
        since=first,
    )


REFUSED_STEPS = rule(
    Rule(
        id="refused-steps",
        title="Updates are refused",
        mechanism="The trainer leaves out an update whose gradient is not finite, so weights stay sound, but the "
        "rollout is "
        "wasted and the cause is still there.",
        reads=(("update/refused",),),
        threshold="any refused update (warning), 10 % of all or half of the recent ones (problem)",
        remedy="Find the batch: an infinite log-ratio, an empty response, an overflow in half precision.",
        silent="where refused updates are not logged: they are by this project's trainer",
        check=_check,
        rank=2,
    )
)
