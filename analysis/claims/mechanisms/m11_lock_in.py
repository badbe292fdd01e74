"""M11. Commitment to what was seen first."""

from __future__ import annotations

from analysis.claims.mechanisms import BASELINES, PAPER, PPO, UNCLIPPED
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M11",
        source=PAPER,
        statement="Without a clip the policy commits to what it happened to see first.",
        status="toy",
        reason="At moderate steps the order is reversed: there the clip is what keeps rare arms from being found.",
    )
)

register(
    StatisticalClaim(
        id="baselines/no-clip-locks-in",
        paper=BASELINES,
        judges=("M11", "X3"),
        title="Without a clip large updates lock in",
        source="Mechanism M11",
        statement="At large updates the policy without a clip commits to a common arm: its final reward is at least "
        "0.3 below PPO's.",
        scope="RareArm-v1: 16 contexts, 100 arms, the best with initial probability 0.01; learning rate 64, 60 "
        "rollouts. At a quarter of that rate the order is reversed.",
        unit="reward",
        setting=MODULAR_SUM | {"env": "RareArm-v1", "learning_rate": 64.0},
        arms={"unclipped": UNCLIPPED, "ppo": PPO},
        estimand=difference(final("exact/return"), of="unclipped", minus="ppo"),
        direction="less",
        threshold=-0.3,
        acts=(("ppo", "clip/fraction"),),
        curves=("exact/regret", "exact/entropy"),
        falsifier=Falsifier(
            "The unclipped policy learns at a quarter of the rate.", {"unclipped": UNCLIPPED | {"learning_rate": 16.0}}
        ),
        recorded="reproduced",
    )
)
