"""The policy jumps away from the old one or from the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown
from analysis.diagnose.rules._spikes import spikes, stays
from analysis.diagnose.series import Series

__all__ = ["DIVERGENCE_SPIKE"]

_LEAST = {"kl/old": 0.05, "kl/old_k2": 0.05, "kl/old_k3": 0.05, "kl/ref": 0.1}


def _check(case: Case) -> Iterator[Finding]:
    worst = None
    for name, item in case.named(*_LEAST):
        size = Series.of(item.key, item.steps, np.abs(item.values)) if (item.low < 0).any() else item
        places = spikes(size, 10.0, _LEAST[name])
        if len(places) and (worst is None or size.steps[places[0]] < worst[2]):
            worst = (name, size, float(size.steps[places[0]]), places)
    if worst is None:
        return
    name, size, step, places = worst
    peak = float(size.high[places].max())
    lasting = stays(size, int(places[0]), 5.0)
    before = float(np.median(size.values[max(0, places[0] - 24) : places[0]]))
    yield DIVERGENCE_SPIKE.finding(
        "problem" if peak >= 1 or lasting else "warning",
        f"{size.key} jumps to {shown(peak)} at step {step:g}, from {shown(before)} before"
        f"{'; it stays up' if lasting else ''}{f'; {len(places)} times in all' if len(places) > 1 else ''}.",
        evidence=case.evidence(name, "gradient/norm", "reward/mean"),
        since=step,
    )


DIVERGENCE_SPIKE = rule(
    Rule(
        id="divergence-spike",
        title="The divergence jumps",
        mechanism="One large update: an unbounded ratio of a negative token, an outlying advantage, a batch of a few "
        "long "
        "responses. Bounds on the ratio do not bound the step.",
        reads=(tuple(_LEAST),),
        threshold="at least 10 times the median of the 24 rows before and 8 of their deviations, and 0.05 nats (0.1 "
        "for "
        "the reference); a problem from 1 nat on, or when it stays up",
        remedy="Look at that batch; bound the ratio of negative tokens (dual clip), clip the gradient's norm, lower "
        "the "
        "step size.",
        silent="where no divergence is logged, and in the first 8 rows",
        check=_check,
        rank=31,
    )
)
