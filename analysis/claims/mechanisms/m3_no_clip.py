"""M3. The unclipped ratio objective against PPO."""

from __future__ import annotations

from analysis.claims.mechanisms import BASELINES, PAPER, PPO, UNCLIPPED
from analysis.judging.claim import Falsifier, StatisticalClaim, Tuning, register
from analysis.judging.estimands import average, contrast, difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M3",
        source=PAPER,
        statement="The unclipped ratio objective against PPO on modular sum.",
        status="toy",
        reason="A table forgives large steps; damage to other states needs shared parameters.",
    )
)

EQUAL_BUDGET = Tuning((16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0), final("exact/return"))

register(
    StatisticalClaim(
        id="baselines/clip-protects-reward",
        paper=BASELINES,
        judges=("M3", "X3"),
        title="The clip protects the reward",
        source="Mechanism M3; PPO, arXiv 1707.06347, section 6.1",
        statement="Without a clip the final reward is at least 0.05 below PPO's, each at its best learning rate.",
        scope="Tabular policy on modular sum, 60 rollouts of four passes, fresh rollouts.",
        unit="reward",
        setting=MODULAR_SUM,
        arms={"unclipped": UNCLIPPED, "ppo": PPO},
        estimand=difference(final("exact/return"), of="unclipped", minus="ppo"),
        statistic="iqm",
        direction="less",
        threshold=-0.05,
        tuning=EQUAL_BUDGET,
        acts=(("ppo", "clip/fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier("The clip is not removed after all.", {"unclipped": PPO}),
        recorded="refuted",
        tier="full",
        notes=(
            "States of a table do not interfere, so an overshoot in one costs nothing elsewhere; a shared network has "
            "no such protection. What the clip costs here is speed.",
        ),
    )
)

register(
    StatisticalClaim(
        id="baselines/clip-limits-divergence",
        paper=BASELINES,
        judges=("M3",),
        title="The clip limits the divergence of large updates",
        source="Mechanism M3; PPO, arXiv 1707.06347, section 3",
        statement="At large updates the divergence per iteration without a clip is more than twice that of PPO.",
        scope="Tabular policy on modular sum, learning rate 64. At 16 the factor is well below two.",
        unit="nats per response",
        setting=MODULAR_SUM | {"learning_rate": 64.0},
        arms={"unclipped": UNCLIPPED, "ppo": PPO},
        estimand=contrast(average("exact/kl_step"), of="unclipped", minus="ppo", times=2.0),
        direction="greater",
        threshold=0.0,
        planted=0.04,
        acts=(("ppo", "clip/fraction"),),
        curves=("exact/kl_step", "exact/regret"),
        falsifier=Falsifier(
            "The unclipped policy learns at a quarter of the rate.", {"unclipped": UNCLIPPED | {"learning_rate": 16.0}}
        ),
        recorded="reproduced",
    )
)
