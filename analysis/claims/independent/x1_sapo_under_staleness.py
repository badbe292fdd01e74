"""X1. VESPO's report on SAPO under staleness."""

from __future__ import annotations

from analysis.claims import sapo
from analysis.claims.independent import PAPER
from analysis.claims.sapo import EQUAL_BUDGET, GSPO, SAPO, SHARED, SHARED_BUDGET, SHARED_SCOPE, WIDE_GSPO
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="X1",
        source=PAPER,
        statement="VESPO, 30B mixture of experts, staleness 4 to 64: SAPO falls from 65.2 to 16.5 and is below GRPO "
        "and GSPO from 32 on; against a general reading of S1.",
        status="toy",
        configuration="On language models: `testbed finetune` with `objective: sapo`, `gspo`, `grpo` and `vespo`, and "
        "`trainer.steps_per_generation` from 4 to 64. Smallest honest version: a mixture of experts of about 1B active "
        "parameters on GSM8K, three ages of rollouts, five seeds an arm.",
        reason="The scores are of a model and a length of training out of reach here.",
    )
)

register(
    StatisticalClaim(
        id="sapo/extreme-staleness",
        paper=sapo.PAPER,
        judges=("X1", "M10", "S1"),
        title="At extreme staleness GSPO overtakes SAPO",
        source="VESPO, arXiv 2602.10693v3, statement X1 (against S1)",
        statement="With rollouts 32 iterations old, SAPO's final reward is at least 0.05 below GSPO's, each at its "
        "best learning rate.",
        scope="Tabular policy on modular sum with 12 tokens, 60 rollouts, GSPO at its published range.",
        unit="reward",
        setting=STALE | {"staleness": 32},
        arms={"sapo": SAPO, "gspo": GSPO},
        estimand=difference(final("exact/return"), of="sapo", minus="gspo"),
        statistic="iqm",
        direction="less",
        threshold=-0.05,
        tuning=EQUAL_BUDGET,
        acts=(("gspo", "clip/fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier("SAPO gets fresh rollouts.", {"sapo": SAPO | {"staleness": 0}}),
        recorded="refuted",
        tier="full",
        notes=(
            "The report is of a mixture-of-experts language model whose sampler also differs from its trainer; the "
            "claim sapo/extreme-staleness-shared repeats the comparison with a transformer.",
        ),
    )
)

register(
    StatisticalClaim(
        id="sapo/extreme-staleness-shared",
        paper=sapo.PAPER,
        judges=("X1", "S1"),
        title="At extreme staleness GSPO overtakes SAPO, with shared parameters",
        source="VESPO, arXiv 2602.10693v3, statement X1 (against S1)",
        statement="With rollouts 32 iterations old, SAPO's final reward is at least 0.05 below that of GSPO with "
        "bounds of ±0.1, each at its best learning rate.",
        scope=f"{SHARED_SCOPE} 100 rollouts; GSPO's range was widened, since its published one clips more than half of "
        "the responses here and hardly learns.",
        unit="reward",
        setting=SHARED | {"steps": 100, "staleness": 32},
        arms={"sapo": SAPO, "gspo": WIDE_GSPO},
        estimand=difference(final("exact/return"), of="sapo", minus="gspo"),
        direction="less",
        threshold=-0.05,
        tuning=SHARED_BUDGET,
        acts=(("gspo", "clip/fraction"),),
        curves=("exact/regret", "exact/entropy", "exact/kl_step"),
        falsifier=Falsifier("SAPO gets fresh rollouts.", {"sapo": SAPO | {"staleness": 0}}),
        recorded="refuted",
        tier="networks",
        seeds=56,
    )
)
