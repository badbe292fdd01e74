"""Groups whose rewards are all equal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, ends, lasting, rule, shown
from analysis.diagnose.series import Series

__all__ = ["NO_SIGNAL"]

_WARNING, _PROBLEM = 0.75, 0.95


def _dead_share(case: Case) -> Series | None:
    """The share of groups without a signal, or 0 and 1 where only whole batches can be told."""
    for name in ("group/zero_variance_fraction", "advantage/nonzero_fraction"):
        found = case.finite(name)
        if found is not None:
            dead = found.values if name.startswith("group") else 1 - found.values
            return Series.of(found.key, found.steps, dead)
    for low, high in (("advantage/min", "advantage/max"), ("reward/min", "reward/max")):
        first, second = case.finite(low), case.finite(high)
        if first is not None and second is not None:
            steps, at, other = np.intersect1d(first.steps, second.steps, return_indices=True)
            if len(steps):
                equal = (first.values[at] == second.values[other]).astype(float)
                return Series.of(f"{first.key} = {second.key}", steps, equal)
    for name in ("reward/group_std", "reward/std"):
        found = case.finite(name)
        if found is not None:
            return Series.of(f"{found.key} = 0", found.steps, (found.high == 0).astype(float))
    return None


def _check(case: Case) -> Iterator[Finding]:
    dead = _dead_share(case)
    if dead is None or len(dead) < 3:
        return
    width = ends(len(dead))
    recent = float(np.median(dead.values[-width:]))
    if recent < _WARNING:
        return
    level = "problem" if recent >= _PROBLEM else "warning"
    since = lasting(dead, _WARNING)
    whole = "=" in dead.key
    said = (
        f"{dead.key} in {(dead.values[-width:] == 1).mean():.0%} of the recent rows: all rewards of a batch are equal"
        if whole
        else f"{shown(100 * recent)} % of the recent groups have no spread of rewards ({dead.key})"
    )
    parts = []
    for name, word in (("group/too_easy_fraction", "too easy"), ("group/too_hard_fraction", "too hard")):
        if case.has(name):
            parts.append(f"{shown(100 * case.recent(name))} % {word}")
    needs = []
    if parts:
        said += f"; {' and '.join(parts)}"
        split = {name: case.recent(name) for name in ("group/too_easy_fraction", "group/too_hard_fraction")}
        easy = split["group/too_easy_fraction"] >= split["group/too_hard_fraction"]
        remedy = (
            "Most are too easy: take them out or add harder prompts."
            if easy
            else "Most are too hard: add easier prompts, more responses per prompt, or a partial reward."
        )
    else:
        needs.append("the shares of groups that are all right and all wrong, which are not logged")
        remedy = "Look at the rewards by prompt: drop those that are always right, ease those that are always wrong."
        reward = case.recent("reward/mean")
        if reward == reward:
            said += f"; the mean reward is {shown(reward)}"
    kept = max(1 - recent, 0.0)
    if kept > 0:
        said += f". The gradient comes from {shown(100 * kept)} % of the groups, {shown(kept**-0.5)} times as noisy"
    yield NO_SIGNAL.finding(
        level,
        f"{said}.",
        remedy=f"{remedy} {NO_SIGNAL.remedy}",
        evidence=case.evidence(
            "group/zero_variance_fraction",
            "advantage/nonzero_fraction",
            "group/too_easy_fraction",
            "group/too_hard_fraction",
            "reward/mean",
        )[:4],
        since=since,
        onset=_onset(dead, since),
        needs=needs,
        extra={
            name: case.recent(f"group/{name}_fraction")
            for name in ("too_easy", "too_hard")
            if case.has(f"group/{name}_fraction")
        },
    )


def _onset(dead: Series, since: float):
    from analysis.diagnose.onset import change_point

    found = change_point(dead.steps, dead.values)
    return found if found is not None and since > dead.steps[0] else None


NO_SIGNAL = rule(
    Rule(
        id="no-signal",
        title="Most groups have no signal",
        mechanism="Responses of a group that are all right or all wrong have equal rewards, hence advantage 0 and no "
        "gradient. With a share z of such groups the gradient's noise grows by 1/sqrt(1 - z).",
        reads=(
            (
                "group/zero_variance_fraction",
                "advantage/nonzero_fraction",
                "advantage/max",
                "reward/max",
                "reward/group_std",
                "reward/std",
            ),
        ),
        threshold="recent share at least 75 % (warning: the noise has doubled) or 95 % (problem: more than four "
        "times); "
        "where only a batch's extremes are logged, batches of equal rewards",
        remedy="Filter or resample such groups (dynamic sampling).",
        silent="where neither dead groups nor extremes are logged, and for TRL's frac_reward_zero_std when rewards are "
        "scaled by the batch, which cannot see dead groups",
        check=_check,
        rank=20,
        settings=("standardise", "group_size"),
    )
)
