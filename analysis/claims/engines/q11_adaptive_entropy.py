"""Q11. A coefficient that follows the entropy."""

from __future__ import annotations

from analysis.claims.engines import PAPER, PPO
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import difference, final, value_of
from analysis.judging.settings import MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q11",
        source=PAPER,
        statement="An adaptive coefficient keeps the entropy at its target or above, where a fixed one either "
        "collapses or explodes.",
        status="toy",
        reason="That a fixed coefficient is fragile is judged in C4.",
    )
)

TARGET = 1.5
ADAPTIVE = {"objective": f"adaptive_entropy(target={TARGET},step=0.01)"}
SOURCE = "Skywork-OR1, arXiv 2505.22312, as TRL 1.16 has it"
SCOPE = (
    f"Tabular policy on modular sum, learning rate 16, 100 rollouts of four passes, target of {TARGET} nats per token, "
    "step of 0.01 per update: TRL's 0.005 is meant for thousands of updates."
)
SETTING = MODULAR_SUM | {"steps": 100}

register(
    StatisticalClaim(
        id="engines/adaptive-entropy-holds-its-target",
        paper=PAPER,
        judges=("Q11",),
        title="The entropy ends at its target or above",
        source=SOURCE,
        statement=f"The entropy per token ends no more than 0.05 nats below a target of {TARGET}.",
        scope=SCOPE,
        unit="nats per token",
        setting=SETTING,
        arms={"adaptive": ADAPTIVE, "ppo": PPO},
        estimand=value_of(final("exact/token_entropy"), "adaptive"),
        direction="greater",
        threshold=TARGET - 0.05,
        planted=TARGET,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="adaptive", minus="ppo")),
        acts=(("adaptive", "entropy/coefficient"),),
        curves=("exact/token_entropy", "entropy/coefficient", "exact/return"),
        falsifier=Falsifier("The coefficient stays at 0.", {"adaptive": PPO}),
        recorded="reproduced",
        tier="full",
        seeds=24,
    )
)
