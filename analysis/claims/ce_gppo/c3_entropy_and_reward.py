"""C3. What losing or keeping entropy does to the reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.claims.ce_gppo import CITATION, PAPER, RARE_ARM, SCOPE, betas
from analysis.judging.claim import Falsifier, StatisticalClaim, Tier, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from analysis.statistics import Verdict

file_entry(
    Entry(
        number="C3",
        source=PAPER,
        statement="Losing entropy too fast (1, ½) lowers the accuracy after a while; keeping too much of it (0, 1) "
        "brings no gain.",
        status="toy",
        reason="Whether early entropy is worth reward depends on whether solutions are rare.",
    )
)

TWENTIETH = Falsifier(
    "The other arm gets a twentieth of the learning rate.",
    {"(¾, 1)": betas(0.75, 1.0) | {"learning_rate": 0.8}},
)


def _fast_decay_costs_reward(
    name: str, *, setting: Mapping[str, Any], tier: Tier, seeds: int, recorded: Verdict, note: str
) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"ce-gppo/{name}",
        paper=PAPER,
        judges=("C3",),
        title=f"Fast entropy decay costs reward, {setting['env'].removesuffix('-v1')}",
        source=f"{CITATION}, statement C3",
        statement="The setting of fastest entropy decay, (β₁, β₂) = (1, ½), ends with less reward than (¾, 1).",
        scope=f"Tabular policy on {setting['env']}, learning rate 16, {setting['steps']} iterations; judged where "
        "a solution is rare and where there are many, because the answer differs.",
        unit="reward",
        setting=setting,
        arms={"(1, ½)": betas(1.0, 0.5), "(¾, 1)": betas(0.75, 1.0)},
        estimand=difference(final("exact/return"), of="(1, ½)", minus="(¾, 1)"),
        direction="less",
        threshold=0.0,
        planted=-0.01,
        acts=(("(1, ½)", "band/outside_fraction"),),
        curves=("exact/regret", "exact/entropy"),
        seeds=seeds,
        falsifier=TWENTIETH,
        recorded=recorded,
        notes=(note,),
        tier=tier,
    )


register(
    _fast_decay_costs_reward(
        "fast-decay-costs-reward",
        setting=RARE_ARM,
        tier="full",
        seeds=224,
        recorded="reproduced",
        note="A prompt whose policy has collapsed on a common arm never finds the rare one again: this is the loss.",
    )
)
register(
    _fast_decay_costs_reward(
        "fast-decay-costs-reward-of-many-solutions",
        setting=MODULAR_SUM,
        tier="quick",
        seeds=48,
        recorded="refuted",
        note="With many solutions nothing is lost by settling on a few of them early.",
    )
)

register(
    StatisticalClaim(
        id="ce-gppo/high-entropy-gains-nothing",
        paper=PAPER,
        judges=("C3", "C8"),
        title="Keeping the entropy highest gains nothing",
        source=f"{CITATION}, statement C3",
        statement="The setting of slowest entropy decay, (β₁, β₂) = (0, 1), ends with at most 0.005 more reward than "
        "(¾, 1).",
        scope=f"{SCOPE} Expected reward after 60 iterations.",
        unit="reward",
        setting=MODULAR_SUM,
        arms={"(0, 1)": betas(0.0, 1.0), "(¾, 1)": betas(0.75, 1.0)},
        estimand=difference(final("exact/return"), of="(0, 1)", minus="(¾, 1)"),
        direction="less",
        threshold=0.005,
        planted=-0.005,
        acts=(("(0, 1)", "band/outside_fraction"),),
        curves=("exact/regret", "exact/entropy"),
        falsifier=TWENTIETH,
        recorded="reproduced",
    )
)
