"""Weights that are the mass top-k or top-p kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, ends, rule, shown
from analysis.diagnose.series import Series

__all__ = ["KEPT_MASS"]


def _truncates(case: Case) -> bool | None:
    """Whether the settings cut the distribution that is sampled; `None`: not known."""
    top_p, top_k, min_p = case.number("top_p"), case.number("top_k"), case.number("min_p")
    if (top_p is not None and top_p < 1) or (top_k is not None and top_k > 0) or (min_p is not None and min_p > 0):
        return True
    return False if top_p is not None and top_k is not None else None


def _check(case: Case) -> Iterator[Finding]:
    kind = "weight" if case.finite("sampler/weight_mean") is not None else "ratio"
    mean = case.finite(f"sampler/{kind}_mean")
    sure = _truncates(case)
    if mean is None or len(mean) < 5 or sure is False:
        return
    width = max(ends(len(mean)), min(len(mean), 10))
    recent = mean.values[-width:]
    level, spread = float(np.median(recent)), float(np.std(recent))
    lost = 1 - level
    if level > (0.99 if sure else 0.995):
        return
    highest, lowest = case.finite(f"sampler/{kind}_max"), case.finite(f"sampler/{kind}_min")
    bounded = highest is not None and float(np.quantile(highest.values[-width:], 0.9)) <= 1.001 + 0.5 * lost
    steady = spread <= 0.25 * lost and lost >= 0.01
    if not sure:
        if lowest is not None and (lowest.values[-width:] <= 0).mean() > 0.5:
            # Zeros are rejected responses, not kept mass.
            return
        if not bounded and not (steady and _agrees(case, lost) and not _capped(highest)):
            return
    if bounded and highest is not None:
        said = f"none of the weights is above 1 ({highest.key} at most {shown(float(highest.values[-width:].max()))})"
    elif steady:
        said = f"it hardly varies (standard deviation {shown(spread)})"
    else:
        said = "that is not made up for by weights above 1"
    settings = ", ".join(
        f"{case.source(name)} = {case.setting(name)}"
        for name in ("top_k", "top_p", "min_p")
        if case.setting(name) is not None
    )
    tail = f"; the configuration truncates ({settings})" if sure else ""
    if not sure and not bounded:
        level_name = "note" if highest is None else "warning"
    else:
        level_name = "problem" if level < 0.9 else "warning"
    yield KEPT_MASS.finding(
        level_name,
        f"{mean.key} is {shown(level)} and {said}{tail}: every weight is the mass S that truncation kept, so the "
        f"gradient is scaled by it, differently for every token.",
        evidence=case.evidence(
            f"sampler/{kind}_mean", f"sampler/{kind}_max", f"sampler/{kind}_min", "sampler/log_abs_mean"
        ),
        since=float(mean.steps[0]),
        needs=[] if sure else case.takes("top_p", "top_k"),
        explains=("mismatch", "rejected-sequences"),
    )


def _agrees(case: Case, lost: float) -> bool:
    """Whether the mean |log-ratio| is what a lost share of that size gives, where it is logged."""
    difference = case.recent("sampler/log_abs_mean")
    return difference != difference or 0.3 * lost <= difference <= 5 * lost


def _capped(highest: Series | None) -> bool:
    """Whether the largest weight is at its limit, which takes from the mean as well."""
    return highest is not None and float(np.ptp(highest.values)) == 0


KEPT_MASS = rule(
    Rule(
        id="kept-mass",
        title="The weights are the mass that top-k or top-p kept",
        mechanism="A sampler that renormalises over the tokens it kept reports p/S, the trainer p: their quotient is "
        "S, "
        "the kept mass, for every token. Under the sampler the mean of p_trainer/p_sampler is exactly the mass of its "
        "support, so a mean below 1 that no weight above 1 makes up for is lost mass.",
        reads=(("sampler/weight_mean", "sampler/ratio_mean"),),
        threshold="by the configuration a truncated sampler and a recent mean of at most 0.99; else a mean of at most "
        "0.995 without a weight clearly above 1, or a mean that varies less than a quarter of what is missing beside "
        "log-ratios of that size, and no weight of 0 and none at its limit; a problem below 0.9",
        remedy="Sample without top-k, top-p and min-p, or let the trainer renormalise over the same tokens.",
        silent="where no weight is logged, where the configuration says that nothing is cut, and where weights are 0",
        check=_check,
        rank=10,
        settings=("top_p", "top_k", "min_p"),
    )
)
