"""One update per rollout, and yet old and current policy differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, ends, rule, shown
from analysis.diagnose.rules._ratio import CLIPPED

__all__ = ["DIVERGENCE_ON_POLICY"]

_WARNING, _PROBLEM = 1e-4, 1e-2


def _check(case: Case) -> Iterator[Finding]:
    if not case.one_update or case.off_policy:
        return
    levels = []
    for name, item in case.named("kl/old", "kl/old_k2", "kl/old_k3"):
        values = np.abs(item.values[-max(ends(len(item)), 10) :])
        levels.append((float(np.median(values)), name, item))
    for name in ("ratio/mean", "ratio/max"):
        found = case.finite(name)
        if found is not None:
            levels.append((float(np.median(np.abs(found.values - 1))), name, found))
    for name, item in case.named(*CLIPPED):
        levels.append((float(np.median(item.values[-max(ends(len(item)), 10) :])), name, item))
    levels = [entry for entry in levels if len(entry[2]) >= 3 and entry[0] >= _WARNING]
    if not levels:
        return
    level, name, item = levels[0]
    yield DIVERGENCE_ON_POLICY.finding(
        "problem" if level >= _PROBLEM else "warning",
        f"One update per rollout ({case.source('updates_per_rollout')}), and {item.key} is "
        f"{shown(float(np.median(item.values)))}"
        f" where it has to be {'1' if name.startswith('ratio') else '0'}: the old log-probabilities are not those of "
        "the "
        "policy that is updated.",
        evidence=case.evidence(name, *(other for _, other, _ in levels[1:3])),
        since=float(item.steps[0]),
    )


DIVERGENCE_ON_POLICY = rule(
    Rule(
        id="divergence-on-policy",
        title="Old and current policy differ although there is one update per rollout",
        mechanism="With one update per rollout the first forward pass of training repeats the one that gave the old "
        "log-probabilities. A divergence that is not 0 is a difference of the two passes: another kernel, padding, "
        "dropout, another temperature, routing of experts, or old log-probabilities taken from the sampler.",
        reads=(("kl/old", "kl/old_k2", "kl/old_k3", "ratio/mean", "ratio/max", *CLIPPED),),
        threshold="median of at least 1e-4 (rounding in half precision stays below; warning) or 1e-2 (problem)",
        remedy="Compute old log-probabilities with the training engine in training's precision and batch layout, "
        "switch "
        "dropout off, and divide by the same temperature.",
        silent="where the updates per rollout are not known or several, and where responses come from an older policy "
        "or from the sampler's own log-probabilities by configuration",
        check=_check,
        rank=13,
        settings=("updates_per_rollout",),
    )
)
