"""The ceiling for negative advantages acts on many tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, ends, lasting, rule, shown

__all__ = ["DUAL_CLIP"]

_WARNING, _PROBLEM = 0.01, 0.05


def _check(case: Case) -> Iterator[Finding]:
    found = case.finite("clip/ceiling_fraction")
    ceiling = case.number("dual_clip")
    if found is None or len(found) < 3:
        return
    recent = float(np.median(found.values[-ends(len(found)) :]))
    if recent < _WARNING:
        return
    set_to = f" ({case.source('dual_clip')} = {shown(ceiling)})" if ceiling is not None else ""
    statement = (
        f"{shown(100 * recent)} % of the tokens have A < 0 and a ratio above the dual clip{set_to}, so their gradient "
        "is 0 "
        f"({found.key}; it is not the share at the lower bound)."
    )
    upper = case.number("clip_high")
    if ceiling is not None and upper is not None and ceiling <= 1 + 2 * upper:
        statement += f" The ceiling is close to the upper bound {shown(1 + upper)}, so ordinary tokens meet it."
    yield DUAL_CLIP.finding(
        "problem" if recent >= _PROBLEM else "warning",
        statement,
        evidence=case.evidence("clip/ceiling_fraction", "clip/fraction", "kl/old", mark=_WARNING),
        since=lasting(found, _WARNING),
    )


DUAL_CLIP = rule(
    Rule(
        id="dual-clip",
        title="The dual clip acts on many tokens",
        mechanism="For A < 0 the loss of a token grows with its ratio without bound, so engines cut its gradient off "
        "above a "
        "ratio c, 3 in verl. A bad token that became three times as likely within one rollout is rare; many of them "
        "mean "
        "that the policy has moved far, that responses are stale, or that old log-probabilities are wrong. What is cut "
        "off is exactly the correction of those tokens.",
        reads=(("clip/ceiling_fraction",),),
        threshold="recent share of at least 1 % (warning) or 5 % (problem); it is about 0 when the policy moves little",
        remedy="Fewer updates per rollout, fresher responses or a smaller step; a ceiling of 3 and more.",
        silent="where the share is not logged",
        check=_check,
        rank=17,
        settings=("dual_clip", "clip_high"),
    )
)
