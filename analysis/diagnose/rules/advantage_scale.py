"""Advantages larger than standardisation can make them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown

__all__ = ["ADVANTAGE_SCALE"]

_WARNING, _PROBLEM = 20.0, 100.0


def _check(case: Case) -> Iterator[Finding]:
    sizes = []
    for name in ("advantage/max", "advantage/min", "advantage/abs_mean", "advantage/mean"):
        found = case.finite(name)
        if found is not None:
            size = np.maximum(np.abs(found.high), np.abs(found.low))
            beyond_limit = np.flatnonzero(size > _WARNING)
            place = int(beyond_limit[0]) if len(beyond_limit) else int(np.argmax(size))
            sizes.append((float(size.max()), name, float(found.steps[place])))
    if not sizes:
        return
    largest, name, since = max(sizes)
    responses, divided = case.number("group_size"), case.setting("standardise")
    bound = math.sqrt(responses - 1) if responses is not None and responses > 1 else None
    standardised = divided is None or str(divided) == "group"
    beyond = (
        bound is not None and standardised and largest > 1.05 * bound and name in {"advantage/max", "advantage/min"}
    )
    rewards = [abs(value) for key in ("reward/max", "reward/min") if (value := _extreme(case, key)) is not None]
    if largest < _WARNING and not (beyond and largest >= 2 * bound):  # type: ignore[operator]
        return
    if rewards and largest <= 2 * max(rewards):
        # Advantages that are only centred are as large as the rewards.
        return
    statement = f"{case.key(name)} reaches {shown(largest)} in size, first large at step {since:g}."
    if bound is not None:
        statement += f" A group of {responses:g} standardised by its own deviation cannot exceed {shown(bound)}."
    yield ADVANTAGE_SCALE.finding(
        "problem" if largest >= _PROBLEM or (beyond and largest >= 5 * bound) else "warning",  # type: ignore[operator]
        statement,
        evidence=case.evidence(name, "gradient/norm", "reward/mean"),
        since=since,
        explains=("gradient-spike",),
        needs=[] if bound is not None else case.takes("group_size"),
    )


def _extreme(case: Case, name: str) -> float | None:
    found = case.finite(name)
    return None if found is None else float(np.max(np.abs(np.r_[found.low, found.high])))


ADVANTAGE_SCALE = rule(
    Rule(
        id="advantage-scale",
        title="An advantage is far too large",
        mechanism="Dividing by a deviation that is almost 0, as when all rewards of a group but a rounding error are "
        "equal, "
        "or when the response itself is left out of it, gives advantages in the thousands; one of them is the "
        "gradient.",
        reads=(("advantage/max", "advantage/min", "advantage/abs_mean", "advantage/mean"),),
        threshold="|A| of at least 20 (a standardised group of 400; warning) or 100 (of 10,000; problem), or twice and "
        "five times what the group size allows; not where rewards themselves are that large",
        remedy="Give the deviation a floor (1e-4 and not 1e-9), leave groups of equal rewards out, or do not divide.",
        silent="where advantages are not logged",
        check=_check,
        rank=16,
        settings=("group_size", "standardise"),
    )
)
