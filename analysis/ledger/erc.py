"""The numbered statements of ERC (Su et al., arXiv 2512.05591); its figures are known from third parties."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "ERC"
FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: {erc}` against `{base}`, several updates a "
    "rollout, 8 responses a prompt, and each objective's learning rate chosen from one grid. Smallest honest version: "
    "`qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."
)

file_entry(
    Entry(
        number="E1",
        source=SOURCE,
        statement="ERC on DAPO raises the average over benchmarks from 53.4 to 55.1 (1.5B) and from 65.3 to 66.2 (7B).",
        status="llm",
        claims=(
            "erc/regret-tuned",
            "erc/reward-at-matched-divergence",
            "erc/reward-at-matched-divergence-same-movement",
        ),
        configuration=FINETUNE.format(erc="erc", base="dapo"),
        reason="The claims judge the counterpart that has a ground truth: regret, and reward for a given divergence.",
    )
)
file_entry(
    Entry(
        number="E2",
        source=SOURCE,
        statement="ERC masks 20.29 % of the tokens where the ratio clip acts on about 0.02 %.",
        status="toy",
        claims=("erc/mask-share",),
        reason="The two shares depend on the entropies of the states and on the size of the updates; their gap is what "
        "is judged.",
    )
)
file_entry(
    Entry(
        number="E3",
        source=SOURCE,
        statement="The masked tokens are predominantly of low entropy.",
        status="toy",
        claims=("erc/masks-low-entropy-tokens",),
    )
)
file_entry(
    Entry(
        number="E4",
        source=SOURCE,
        statement="Entropy and gradient norm are smoother with ERC than without: it constrains the drift of the whole "
        "distribution, the actions that were not sampled included.",
        status="toy",
        claims=(
            "erc/smoother-entropy",
            "erc/smoother-entropy-same-movement",
            "erc/smaller-entropy-excursions",
            "erc/rarer-entropy-excursions",
            "erc/rarer-entropy-excursions-same-movement",
            "erc/smoother-gradient-norm",
            "erc/smaller-steps",
            "erc/unsampled-drift",
            "erc/unsampled-drift-shared",
            "erc/kept-means-unmoved",
        ),
        reason="At equal movement the gradient norm stays smoother, the entropy curve by about a tenth only, and large "
        "changes of entropy are not rarer.",
    )
)
file_entry(
    Entry(
        number="E5",
        source=SOURCE,
        statement="ERC improves GPPO as well.",
        status="toy",
        claims=(
            "erc/gppo-smaller-steps",
            "erc/gppo-smoother-entropy",
            "erc/gppo-smoother-gradient-norm",
            "erc/gppo-unsampled-drift-shared",
            "erc/gppo-regret-tuned",
        ),
        configuration="On language models: " + FINETUNE.format(erc="erc(base=gppo)", base="gppo"),
        reason="Benchmark scores, code and instruction following need language models.",
    )
)
