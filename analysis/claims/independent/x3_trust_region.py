"""X3. DPPO's report on trust regions."""

from __future__ import annotations

from analysis.claims.independent import PAPER, UNCLIPPED
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, difference
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="X3",
        source=PAPER,
        statement="DPPO: without a trust region training collapses at any learning rate, stopping the few negative "
        "tokens that fell by one half suffices, truncating ratios hurts, and relaxing both bounds for rare tokens is "
        "best.",
        status="toy",
        reason="Which tokens suffice to be stopped, and relaxed bounds for rare ones, are judged only through DCPO, "
        "whose bounds do that (D1 to D3).",
    )
)

RARE_ARM = MODULAR_SUM | {"env": "RareArm-v1", "steps": 100, "learning_rate": 32.0}

RARE_SCOPE = (
    "RareArm-v1: 16 contexts, 100 arms, the best arm with initial probability 0.01, tabular policy; learning rate 32, "
    "twice the best one of the unclipped ratio objective."
)

DPPO = {"objective": "dppo"}

register(
    StatisticalClaim(
        id="independent/divergence-mask-protects-reward",
        paper=PAPER,
        judges=("X3",),
        title="A trust region prevents lock-in",
        source="DPPO, arXiv 2602.04879v3, statement X3",
        statement="Stopping tokens whose probability moved by more than 0.15 lowers the mean regret by at least 0.1 "
        "against no trust region at all.",
        scope=RARE_SCOPE,
        unit="reward",
        setting=RARE_ARM,
        arms={"dppo": DPPO, "unclipped": UNCLIPPED},
        estimand=difference(average("exact/regret"), of="dppo", minus="unclipped"),
        direction="less",
        threshold=-0.1,
        acts=(("dppo", "dppo/masked_fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier(
            "The divergence at which a token is stopped is raised to 0.99.",
            {"dppo": {"objective": "dppo(threshold=0.99)"}},
        ),
        recorded="reproduced",
        notes=("At the unclipped objective's best learning rate, half of this one, the two are alike.",),
        seeds=80,
    )
)

register(
    StatisticalClaim(
        id="independent/truncated-ratios-hurt",
        paper=PAPER,
        judges=("X3",),
        title="Truncating the ratios hurts",
        source="DPPO, arXiv 2602.04879v3, statement X3",
        statement="Truncating DPPO's ratios at 3 raises its mean regret by at least 0.05.",
        scope=RARE_SCOPE,
        unit="reward",
        setting=RARE_ARM,
        arms={"truncated": {"objective": "dppo(ratio_max=3.0)"}, "dppo": DPPO},
        estimand=difference(average("exact/regret"), of="truncated", minus="dppo"),
        direction="greater",
        threshold=0.05,
        acts=(("dppo", "dppo/masked_fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier("The ratios are truncated at 1.5.", {"truncated": {"objective": "dppo(ratio_max=1.5)"}}),
        recorded="refuted",
        notes=(
            "The opposite happens: a ratio that grew large under one lucky reward is what locks the policy in here, "
            "and a cap on its weight is a smaller step.",
        ),
        seeds=80,
    )
)
