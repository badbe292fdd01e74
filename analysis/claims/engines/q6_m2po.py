"""Q6. M2PO under staleness."""

from __future__ import annotations

from analysis.claims.engines import PAPER, PPO
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast, difference, final
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q6",
        source=PAPER,
        statement="M2PO: at staleness 256 the clipped share falls from 1.22 % under GRPO to 0.06 %, and accuracy "
        "matches that on policy; without any trust region stale training first prospers, then collapses.",
        status="toy",
        reason="Nothing collapses on a table (M3); the collapse is not judged here.",
    )
)

SOURCE = "M2PO, arXiv 2510.01161, via third parties; the authors' code"
SETTING = STALE | {"staleness": 32}
SCOPE = "Tabular policy on modular sum with 12 tokens, learning rate 16, rollouts 32 iterations old, 60 of them."
M2PO = {"objective": "m2po"}

register(
    StatisticalClaim(
        id="engines/m2po-gains-under-staleness",
        paper=PAPER,
        judges=("Q6",),
        title="M2PO gains under staleness",
        source=SOURCE,
        statement="M2PO's final return is at least 0.1 above PPO's.",
        scope=SCOPE,
        unit="reward",
        setting=SETTING,
        arms={"m2po": M2PO, "ppo": PPO},
        estimand=difference(final("exact/return"), of="m2po", minus="ppo"),
        direction="greater",
        threshold=0.1,
        acts=(("m2po", "clip/fraction"),),
        curves=("exact/regret", "clip/fraction"),
        falsifier=Falsifier(
            "M2PO's bounds are never wider than PPO's.",
            {"m2po": {"objective": "m2po(budget=0.0,clip_low=0.2,clip_high=0.2)"}},
        ),
        recorded="reproduced",
        notes=("Most of the gain is that of its wider smallest interval, [0.7, 1.5].",),
        tier="full",
        seeds=24,
    )
)

register(
    StatisticalClaim(
        id="engines/m2po-clips-a-tenth",
        paper=PAPER,
        judges=("Q6",),
        title="M2PO clips a tenth of what PPO clips",
        source=SOURCE,
        statement="M2PO's mean clipped share is less than a tenth of PPO's.",
        scope=SCOPE,
        unit="share of tokens",
        setting=SETTING,
        arms={"m2po": M2PO, "ppo": PPO},
        estimand=contrast(average("clip/fraction"), of="ppo", minus="m2po", times=10.0),
        direction="greater",
        threshold=0.0,
        planted=0.02,
        acts=(("ppo", "clip/fraction"),),
        curves=("clip/fraction",),
        falsifier=Falsifier("M2PO is replaced by PPO.", {"m2po": PPO}),
        recorded="refuted",
        notes=(
            "The share falls by a third. A table moves each probability on its own, so that stale ratios lie far "
            "beyond any bound that a second moment of 0.04 allows.",
        ),
        tier="full",
        seeds=24,
    )
)

register(
    StatisticalClaim(
        id="engines/m2po-matches-fresh-rollouts",
        paper=PAPER,
        judges=("Q6",),
        title="M2PO on stale rollouts matches fresh ones",
        source=SOURCE,
        statement="With rollouts 32 iterations old M2PO's final return is within 0.05 of that with fresh ones.",
        scope=SCOPE,
        unit="reward",
        setting=SETTING,
        arms={"stale": M2PO, "fresh": M2PO | {"staleness": 0}},
        estimand=difference(final("exact/return"), of="stale", minus="fresh"),
        direction="equivalent",
        threshold=0.05,
        planted=0.0,
        acts=(("stale", "clip/fraction"),),
        curves=("exact/regret", "clip/fraction"),
        falsifier=Falsifier("The stale arm is PPO.", {"stale": PPO}),
        recorded="refuted",
        tier="full",
        seeds=24,
    )
)
