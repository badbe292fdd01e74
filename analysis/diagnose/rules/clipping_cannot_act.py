"""One update per rollout: every ratio is 1, no bound acts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown
from analysis.diagnose.rules._ratio import CLIPPED, RATIOS, all_at, nothing_to_learn, ratio_is_one

__all__ = ["CLIPPING_CANNOT_ACT"]


def _check(case: Case) -> Iterator[Finding]:
    if case.one_update is False:
        return
    loss = str(case.setting("loss") or "").lower()
    shares = [(name, item) for name, item in case.named(*CLIPPED) if len(item) >= 5]
    never = [item for _, item in shares if all_at(item, 0.0)]
    one = ratio_is_one(case)
    moved = one is False or any(not all_at(item, 0.0) for _, item in shares)
    if moved or (case.off_policy and not never):
        return
    known = case.one_update is True
    if not never and one is None and not known:
        return
    if not shares and one is None:
        # Only the configuration speaks.
        yield CLIPPING_CANNOT_ACT.finding(
            "note",
            f"The configuration has one update per rollout ({case.source('updates_per_rollout')}): every ratio is 1 "
            "when "
            "the gradient is taken, and no bound can act.",
        )
        return
    if never and one is None and not known and loss == "sapo":
        return
    if not known and nothing_to_learn(case):
        return
    seen = [f"{item.key} is 0 in all {len(item)} rows" for item in never[:2]]
    if one:
        ratio = next(item for _, item in case.named(*RATIOS))
        still = "1" if ratio.key.startswith(("ratio", "actor/ratio")) or np.all(ratio.values == 1) else "0"
        seen.append(f"{ratio.key} is {still} in all {len(ratio)} rows")
    if known:
        seen.append(f"there is one update per rollout ({case.source('updates_per_rollout')})")
    bounds = [case.number(name) for name in ("clip_low", "clip_high")]
    stated = f" The bounds {shown(bounds[0])} and {shown(bounds[1])} do nothing." if None not in bounds else ""  # type: ignore[arg-type]
    other = "" if known or one else " Or the steps are so small that no ratio reaches a bound, or the ratio is wrong."
    yield CLIPPING_CANNOT_ACT.finding(
        "warning" if known or one else "note",
        f"{'; '.join(seen)}. With one update per rollout every ratio is 1 when the gradient is taken.{stated}{other}",
        evidence=case.evidence(*(name for name, _ in shares), *RATIOS)[:3],
        since=float(shares[0][1].steps[0]) if shares else None,
        needs=[] if known else case.takes("updates_per_rollout"),
    )


CLIPPING_CANNOT_ACT = rule(
    Rule(
        id="clipping-cannot-act",
        title="Clipping cannot act",
        mechanism="The ratio compares the policy with the one before the rollout's first update. With one update per "
        "rollout they are the same, so the ratio is 1, nothing is clipped, and objectives that differ by their bounds "
        "have the same gradient. The run is sound; the bounds are decoration.",
        reads=(),
        threshold="one update per rollout by the configuration, or every clipped share exactly 0 and every logged "
        "ratio "
        "and divergence at its value for ratio 1, over at least 5 rows (a note where only the shares say so)",
        remedy="If the bounds are meant to act: more updates per rollout (TRL: steps_per_generation above "
        "gradient_accumulation_steps, or num_iterations; verl: a smaller ppo_mini_batch_size). Otherwise leave it.",
        silent="where neither the configuration nor any share or ratio is known, when several updates are configured, "
        "and when responses come from an older policy",
        check=_check,
        rank=60,
        settings=("updates_per_rollout",),
    )
)
