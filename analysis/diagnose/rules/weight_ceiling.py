"""CISPO's ceiling taken for an offset."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown

__all__ = ["WEIGHT_CEILING"]


def _check(case: Case) -> Iterator[Finding]:
    cap, share = case.number("weight_cap"), case.recent("weight/capped_fraction")
    low = cap is not None and cap <= 1.0
    capped = share == share and share >= 0.3
    if not low and not capped:
        return
    said = []
    if low:
        said.append(
            f"The ceiling of the weight is {shown(cap)} ({case.source('weight_cap')}), and weights are about 1: "  # type: ignore[arg-type]
            f"every token is at the ceiling, and the gradient is multiplied by {shown(cap)}"  # type: ignore[arg-type]
        )
    if share == share:
        said.append(f"{case.key('weight/capped_fraction')} is {shown(share)}")
    found = case.finite("weight/capped_fraction")
    yield WEIGHT_CEILING.finding(
        "problem",
        f"{'; '.join(said)}.",
        evidence=case.evidence("weight/capped_fraction", "gradient/norm"),
        since=None if found is None else float(found.steps[0]),
        needs=[] if cap is not None else case.takes("loss", "clip_high"),
    )


WEIGHT_CEILING = rule(
    Rule(
        id="weight-ceiling",
        title="Every weight is at CISPO's ceiling",
        mechanism="TRL and ms-swift take CISPO's epsilon_high as the largest weight itself, other engines as its "
        "offset "
        "from 1; left at 0.2, the default of the other losses, it multiplies every gradient by 0.2 from the first step "
        "on.",
        reads=(),
        threshold="a ceiling of at most 1 by the configuration, or at least 30 % of the tokens at it: ratios are about "
        "1, "
        "so a ceiling meant for outliers holds few",
        remedy="Set epsilon_high to 5 (TRL, ms-swift: absolute).",
        silent="where neither the configuration nor a share of capped tokens is known",
        check=_check,
        rank=6,
        settings=("loss", "clip_high"),
    )
)
