"""The numbered statements of DCPO (Yang et al., arXiv 2509.02333v2)."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "DCPO"
FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: dcpo` against `grpo` and `dapo`, the same "
    "`reduction`, 8 responses a prompt, and each objective's learning rate chosen from one grid."
)
SMALLEST = "Smallest honest version: `qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."
MECHANISM = (
    "The scores themselves need the paper's models and data; the claims judge the mechanism behind them, the reach for "
    "rare tokens."
)

for number, statement in (
    (
        "D1",
        "Qwen2.5-Math-7B, AIME24, Avg@1/Avg@32: DCPO 46.7/38.8 against GRPO 36.7/32.1, DAPO 36.7/31.6 and GSPO "
        "40.0/34.9.",
    ),
    (
        "D2",
        "Qwen2.5-14B, AIME25, Avg@1/Avg@32: DCPO 23.3/19.0 against GRPO 13.3/10.5, DAPO 20.0/15.3 and GSPO 16.7/9.9.",
    ),
    (
        "D3",
        "Averages over four benchmarks at 1.5B to 14B: DCPO best at every size in Avg@1, and in Avg@32 except against "
        "DAPO at 3B (22.7 to 23.1).",
    ),
):
    file_entry(
        Entry(
            number=number,
            source=SOURCE,
            statement=statement,
            status="llm",
            claims=("dcpo/rare-arm-regret", "dcpo/rare-arm-regret-tuned"),
            configuration=f"{FINETUNE} {SMALLEST}",
            reason=MECHANISM,
        )
    )
file_entry(
    Entry(
        number="D4",
        source=SOURCE,
        statement="Response utilisation over 400 steps rises from 43.8 % under GRPO to 71.8 % under DCPO, mean of four "
        "model sizes.",
        status="toy",
        claims=("dcpo/response-utilisation",),
        reason="The size of the gain follows from the spread of success rates and the number of visits (T11).",
    )
)
file_entry(
    Entry(
        number="D5",
        source=SOURCE,
        statement="DCPO's token clipping ratio is about ten times below GRPO's and DAPO's and stays constant, DAPO's "
        "rises, and GSPO's exceeds 11 to 15 %.",
        status="toy",
        claims=("dcpo/token-clip-ratio", "dcpo/token-clip-ratio-large-updates"),
        reason="The trend over hundreds of steps, and GSPO's level, depend on the drift of a language model.",
    )
)
file_entry(
    Entry(
        number="D6",
        source=SOURCE,
        statement="For the same number of updates DAPO generates three to five times as many responses as DCPO, which "
        "costs at least twice the GPU hours.",
        status="toy",
        claims=("dcpo/dynamic-sampling-cost", "dcpo/samples-to-target", "dcpo/samples-to-target-tuned"),
        reason="GPU hours depend on the machine. Per update and per reward reached are different questions.",
    )
)
file_entry(
    Entry(
        number="D7",
        source=SOURCE,
        statement="Only-token-mean loss, smooth standardisation and dynamic clipping each improve GRPO's Avg@32 when "
        "added alone, and all three together are best (7B).",
        status="toy",
        claims=(
            "dcpo/only-token-mean-is-a-rescaling",
            "dcpo/smooth-standardisation-alone",
            "dcpo/rare-arm-regret",
            "dcpo/rare-arm-regret-tuned",
        ),
        configuration=f"On language models: {FINETUNE} Each of `reduction`, `advantage` and the bounds changed alone. "
        f"{SMALLEST}",
        reason="The three together are not judged on toys, where two of them have nothing to add.",
    )
)
file_entry(
    Entry(
        number="D8",
        source=SOURCE,
        statement="Entropy collapses under GRPO, is high and noisy under DAPO, and lies in between and smoother under "
        "DCPO.",
        status="toy",
        claims=("dcpo/entropy-between", "dcpo/smoother-entropy"),
    )
)
file_entry(
    Entry(
        number="D9",
        source=SOURCE,
        statement="After about 60 steps 95 % of the sampled tokens have old probability above 0.9, 97 % after 100; "
        "these can never be clipped from above under any of the rules.",
        status="exact",
        claims=("dcpo/likely-tokens-are-never-clipped", "theory/dcpo-bounds"),
        reason="The share of such tokens is a property of the language model and its prompts.",
    )
)
