"""Published evidence from outside the five papers that bears on their statements."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "Independent"

file_entry(
    Entry(
        number="X1",
        source=SOURCE,
        statement="VESPO, 30B mixture of experts, staleness 4 to 64: SAPO falls from 65.2 to 16.5 and is below GRPO "
        "and GSPO from 32 on; against a general reading of S1.",
        status="toy",
        claims=("sapo/extreme-staleness", "sapo/extreme-staleness-shared"),
        configuration="On language models: `testbed finetune` with `objective: sapo`, `gspo`, `grpo` and `vespo`, and "
        "`trainer.steps_per_generation` from 4 to 64. Smallest honest version: a mixture of experts of about 1B active "
        "parameters on GSM8K, three ages of rollouts, five seeds an arm.",
        reason="The scores are of a model and a length of training out of reach here.",
    )
)
file_entry(
    Entry(
        number="X2",
        source=SOURCE,
        statement="VESPO, staleness 8: BAPO reaches 63.6 with an explosion of entropy after about 1100 steps, CISPO "
        "collapses at about 280 and ends at 48.7 like TOPR.",
        status="toy",
        claims=("independent/bapo-entropy-explodes", "ce-gppo/cispo-collapses-late"),
        configuration="On language models: `testbed finetune` with `objective: bapo`, `cispo` and `topr` and "
        "`trainer.steps_per_generation: 8`. Smallest honest version: 1500 steps of a 1.5B model on GSM8K, three seeds.",
        reason="Both happen late in a long training, which a table that has solved its task does not reach.",
    )
)
file_entry(
    Entry(
        number="X3",
        source=SOURCE,
        statement="DPPO: without a trust region training collapses at any learning rate, stopping the few negative "
        "tokens that fell by one half suffices, truncating ratios hurts, and relaxing both bounds for rare tokens is "
        "best.",
        status="toy",
        claims=(
            "independent/divergence-mask-protects-reward",
            "independent/truncated-ratios-hurt",
            "baselines/no-clip-locks-in",
            "baselines/clip-protects-reward",
        ),
        reason="Which tokens suffice to be stopped, and relaxed bounds for rare ones, are judged only through DCPO, "
        "whose bounds do that (D1 to D3).",
    )
)
file_entry(
    Entry(
        number="X4",
        source=SOURCE,
        statement="ASPO: GRPO with its ratios replaced by one matches GRPO's accuracy, with a slower decay of entropy.",
        status="toy",
        claims=("independent/weight-one-matches-return", "independent/weight-one-keeps-entropy"),
    )
)
file_entry(
    Entry(
        number="X5",
        source=SOURCE,
        statement="Entropy law: 73 % of the entropy and 76 % of the gain are spent in the first twelfth of training, "
        "and R = -a·exp(H) + b predicts the rest; Clip-Cov and KL-Cov raise the 7B average from 38.6 to 40.4 and 40.6.",
        status="toy",
        claims=(
            "independent/entropy-is-spent-early",
            "independent/exponential-law-few-actions",
            "independent/exponential-law-many-actions",
        ),
        reason="The benchmark averages of Clip-Cov and KL-Cov need the paper's models.",
    )
)
