"""B7. Stability under partial rollouts."""

from __future__ import annotations

from analysis.claims.bapo import CITATION, GRPO, PAPER, SCOPE, bapo
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, difference
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="B7",
        source=PAPER,
        statement="Under partial rollouts BAPO is more stable than GRPO.",
        status="toy",
        reason="Judged by the movement of the policy; no toy run becomes unstable.",
    )
)

register(
    StatisticalClaim(
        id="bapo/steadier-under-partial-rollouts",
        paper=PAPER,
        judges=("B7",),
        title="Steadier than GRPO under partial rollouts",
        source=f"{CITATION}, statement B7",
        statement="With rollouts of two tokens at a time, each continued by the next policy, BAPO moves the policy "
        "less per iteration than GRPO.",
        scope=f"{SCOPE} Exact divergence of whole responses of six tokens, three writers each.",
        unit="nats per response",
        setting=MODULAR_SUM | {"partial": 2},
        arms={"bapo": bapo(), "grpo": GRPO},
        estimand=difference(average("exact/kl_step"), of="bapo", minus="grpo"),
        direction="less",
        threshold=0.0,
        planted=-0.002,
        acts=(("grpo", "clip/fraction"),),
        curves=("exact/kl_step", "exact/regret"),
        falsifier=Falsifier(
            "BAPO gets four times the learning rate.",
            {"bapo": bapo() | {"learning_rate": 64.0}},
        ),
        tier="full",
        recorded="refuted",
        notes=("Neither becomes unstable on this task.",),
        seeds=56,
    )
)
