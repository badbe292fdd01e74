"""Q17. A baseline weighted by length."""

from __future__ import annotations

from analysis.claims.engines import PAPER
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q17",
        source=PAPER,
        statement="OPO: with strictly on-policy updates a baseline weighted by length shifts the policy less and keeps "
        "more entropy than GRPO.",
        status="toy",
        reason="Against GRPO itself, which divides by a deviation, the shift is a matter of scale. Entropy is not "
        "judged: at equal speed it differs by less than the seeds do.",
    )
)

FRESH = MODULAR_SUM | {
    "env": "VariableLength-v1(right_length=4.0,wrong_length=8.0)",
    "epochs": 2,
}
OPO = {"objective": "reinforce", "advantage": "opo"}

register(
    StatisticalClaim(
        id="engines/opo-shifts-less",
        paper=PAPER,
        judges=("Q17",),
        title="A baseline weighted by length shifts the policy less",
        source="OPO, arXiv 2505.23585, abstract; estimator of verl 0.9",
        statement="The mean divergence per iteration is at least a twentieth lower than with the group's mean as "
        "baseline.",
        scope="Tabular policy on VariableLength-v1, wrong responses twice as long as right ones, learning rate 16, 60 "
        "rollouts of two passes, since with one nothing but the baseline could differ; neither divides by a deviation.",
        unit="nats per response",
        setting=FRESH,
        arms={"opo": OPO, "mean": {"objective": "reinforce", "advantage": "group_centred"}},
        estimand=contrast(average("exact/kl_step"), of="mean", minus="opo", times=1.05),
        direction="greater",
        threshold=0.0,
        planted=0.0003,
        curves=("exact/kl_step", "exact/entropy", "exact/regret"),
        falsifier=Falsifier(
            "The mean is used after all.", {"opo": {"objective": "reinforce", "advantage": "group_centred"}}
        ),
        recorded="refuted",
        tier="full",
        seeds=24,
    )
)
