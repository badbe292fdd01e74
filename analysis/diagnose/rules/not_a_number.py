"""Losses and gradients that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule

__all__ = ["NOT_A_NUMBER"]

_WATCHED = (
    "gradient/norm",
    "loss",
    "entropy/mean",
    "kl/old",
    "kl/old_k2",
    "kl/old_k3",
    "kl/ref",
    "ratio/mean",
    "ratio/max",
    "kl/sampler",
    "sampler/kl_k3",
    "reward/mean",
    "advantage/mean",
    "advantage/max",
)


_COMPANIONS = ("reward/mean", "length/mean", "entropy/mean", "learning_rate", "clip/fraction", "kl/old")


def _vanished(case: Case) -> tuple[str, float] | None:
    """Loss or gradient that was in every row and is in none after a step, while others go on; name and step."""
    for name in ("gradient/norm", "loss"):
        series = case.get(name)
        if series is None or len(series) < 8 or case.engine.name == "slime":
            # slime counts rollouts and updates on axes of their own.
            continue
        for other in _COMPANIONS:
            companion = case.get(other)
            if companion is None:
                continue
            before = int((companion.steps <= series.steps[-1]).sum())
            after = len(companion) - before
            if after >= max(5, 0.1 * len(companion)) and 0.9 * before <= len(series) <= 1.1 * before:
                return name, float(companion.steps[before])
    return None


def _check(case: Case) -> Iterator[Finding]:
    gone = _vanished(case)
    if gone is not None and not any(case.log.series[name].bad.any() for name in _WATCHED if case.has(name)):
        name, step = gone
        yield NOT_A_NUMBER.finding(
            "warning",
            f"{case.key(name)} is in no row from step {step:g} on, while other keys go on: a value that is not finite "
            "is "
            "left out by some engines, and is an empty cell in a table.",
            title="The loss or the gradient vanishes from the log",
            evidence=case.evidence(name, "reward/mean"),
            since=step,
        )
        return
    hit = [(name, case.log.series[name]) for name in _WATCHED if case.has(name) and case.log.series[name].bad.any()]
    if not hit:
        return
    name, series = min(hit, key=lambda item: float(item[1].steps[np.flatnonzero(item[1].bad)[0]]))
    first = float(series.steps[np.flatnonzero(series.bad)[0]])
    rows, total = int(series.bad.sum()), int(series.counts.sum())
    hidden = 0
    gradient, loss = case.get("gradient/norm"), case.get("loss")
    if gradient is not None and loss is not None and gradient.bad.any():
        _, at, other = np.intersect1d(gradient.steps, loss.steps, return_indices=True)
        hidden = int(((gradient.bad[at] > 0) & (loss.values[other] == 0)).sum())
    lasts = bool(series.bad[-1]) or rows >= max(3, 0.02 * total)
    words = ", ".join(f"{item.key} ({int(item.bad.sum())} of {int(item.counts.sum())} rows)" for _, item in hit)
    statement = f"Not finite: {words}; first at step {first:g}."
    if hidden:
        statement += (
            f" In {hidden} of them the loss is logged as 0: transformers replaces a NaN loss by the running mean of "
            "the "
            "finite ones, which is 0 where there is none."
        )
    yield NOT_A_NUMBER.finding(
        "problem" if lasts or hidden else "warning",
        statement,
        evidence=case.evidence(*dict.fromkeys((name, "gradient/norm", "loss"))),
        since=first,
        explains=("gradient-spike", "divergence-spike", "learning-rate-zero"),
    )


NOT_A_NUMBER = rule(
    Rule(
        id="not-a-number",
        title="The loss or the gradient is not a number",
        mechanism="One token with an infinite log-ratio, an empty mask divided by its count, or an overflow in half "
        "precision makes the sum of a batch NaN; an optimiser that takes that step makes every weight NaN.",
        reads=(_WATCHED,),
        threshold="any value that is NaN or infinite, or a null where there always is a number; a problem when it "
        "lasts to the end, comes in 3 rows and 2 %, or hides behind a loss of 0",
        remedy="Go back to the last checkpoint before it, clamp log-ratios, look for responses without tokens, and "
        "train in bfloat16 or with a smaller step. In transformers, logging_nan_inf_filter=False shows the NaN.",
        silent="where an engine drops such values, as prime-rl does, and logs the key again within a tenth of the run; "
        "a key that stays away is a warning",
        check=_check,
        rank=1,
    )
)
