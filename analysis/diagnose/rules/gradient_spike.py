"""The gradient's norm jumps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown
from analysis.diagnose.rules._spikes import spikes, stays

__all__ = ["GRADIENT_SPIKE"]


def _check(case: Case) -> Iterator[Finding]:
    found = case.finite("gradient/norm")
    if found is None:
        return
    places = spikes(found, 10.0, 1e-6)
    if not len(places):
        return
    step = float(found.steps[places[0]])
    before = float(np.median(found.values[max(0, places[0] - 24) : places[0]]))
    peak = float(found.high[places].max())
    lasting = stays(found, int(places[0]), 5.0)
    yield GRADIENT_SPIKE.finding(
        "problem" if lasting or len(places) >= 3 or peak >= 100 * max(before, 1e-12) else "warning",
        f"{found.key} jumps to {shown(peak)} at step {step:g}, {shown(peak / max(before, 1e-12))} times what it was "
        "before"
        f"{'; it stays up' if lasting else ''}{f'; {len(places)} times in all' if len(places) > 1 else ''}.",
        evidence=case.evidence("gradient/norm", "loss", "kl/old", "reward/mean"),
        since=step,
    )


GRADIENT_SPIKE = rule(
    Rule(
        id="gradient-spike",
        title="The gradient jumps",
        mechanism="A few tokens carry the whole gradient: exploded ratios, an advantage divided by a tiny deviation, a "
        "broken batch. With adaptive optimisers the moments remember it for hundreds of steps.",
        reads=(("gradient/norm",),),
        threshold="at least 10 times the median of the 24 rows before and 8 of their deviations; a problem when it "
        "stays "
        "up, comes three times, or is 100 times as large",
        remedy="Clip the norm (max_grad_norm 1 or less), look at the batch of that step, and at advantages and ratios "
        "there.",
        silent="where the norm is not logged, and in the first 8 rows; OpenRLHF logs the last update's only",
        check=_check,
        rank=32,
    )
)
