"""Several updates per rollout, and yet every ratio is 1."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule
from analysis.diagnose.rules._ratio import CLIPPED, RATIOS, all_at, nothing_to_learn, ratio_is_one

__all__ = ["RATIO_CONSTANT"]


def _check(case: Case) -> Iterator[Finding]:
    one = ratio_is_one(case)
    shares = [(name, item) for name, item in case.named(*CLIPPED) if len(item) >= 5]
    clipped = any(not all_at(item, 0.0) for _, item in shares)
    if case.one_update is True or one is False or clipped:
        return
    updates = case.number("updates_per_rollout")
    rate = case.finite("learning_rate")
    if (rate is not None and all_at(rate, 0.0)) or nothing_to_learn(case):
        return
    if one and updates is not None:
        ratio = next(item for _, item in case.named(*RATIOS))
        yield RATIO_CONSTANT.finding(
            "problem",
            f"{updates:g} updates per rollout ({case.source('updates_per_rollout')}), and {ratio.key} says that the "
            f"ratio is 1 in all {len(ratio)} rows: from the second update on it should not be.",
            evidence=case.evidence(*RATIOS, *CLIPPED)[:3],
            since=float(ratio.steps[0]),
            explains=("clipping-cannot-act",),
        )
    elif one:
        yield RATIO_CONSTANT.finding(
            "note",
            "Every logged ratio and divergence has its value for ratio 1. One update per rollout makes it so; with "
            "several it is a fault.",
            evidence=case.evidence(*RATIOS)[:2],
            needs=case.takes("updates_per_rollout"),
        )
    elif updates is not None and shares and min(len(item) for _, item in shares) >= 10:
        name, item = shares[0]
        if str(case.setting("loss") or "").lower() == "sapo":
            return
        yield RATIO_CONSTANT.finding(
            "note",
            f"{updates:g} updates per rollout ({case.source('updates_per_rollout')}), and {item.key} is 0 in all "
            f"{len(item)} rows: the ratio is constant, or the steps are too small for any to reach a bound.",
            evidence=case.evidence(name),
            since=float(item.steps[0]),
            needs=[
                f"the ratio or the divergence between old and current policy, which {case.engine.title} does not log"
            ],
        )


RATIO_CONSTANT = rule(
    Rule(
        id="ratio-constant",
        title="The ratio is 1 although it should not be",
        mechanism="Old log-probabilities that are computed again at every update, or the current ones without their "
        "gradient in the denominator, make the ratio 1 whatever the policy does: no bound acts, and the second update "
        "is as unbounded as the first.",
        reads=(("ratio/mean", "ratio/max", "kl/old", "kl/old_k2", "kl/old_k3", *CLIPPED),),
        threshold="several updates per rollout by the configuration, and ratio 1 to six digits in every row (problem), "
        "or no token ever clipped in at least 10 rows where the ratio is not logged (note: small steps do that too)",
        remedy="Compute old log-probabilities once, before the first update of a rollout, and keep them.",
        silent="where neither ratio, divergence nor clipped share is logged, with one update per rollout, and where "
        "there is no gradient: a policy that does not "
        "move keeps its ratio",
        check=_check,
        rank=4,
        settings=("updates_per_rollout",),
    )
)
