"""The numbered statements of BAPO (Xi et al., arXiv 2510.18927v1; B6 and B9 from a later version, by third parties)."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "BAPO"
FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: bapo` against `grpo` and `dapo`, the same "
    "`reduction`, each objective's learning rate chosen from one grid."
)
SMALLEST = "Smallest honest version: `qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."

file_entry(
    Entry(
        number="B1",
        source=SOURCE,
        statement="BAPO reaches 70.8/62.5 on AIME24/25 at 7B (GRPO 69.2/59.2) and 87.1/80.0 at 32B (GRPO 84.6/78.8).",
        status="llm",
        claims=("bapo/reward-under-staleness",),
        configuration=f"{FINETUNE} {SMALLEST}",
        reason="The claim judges the mechanism: reward on stale rollouts, each objective at its own learning rate.",
    )
)
file_entry(
    Entry(
        number="B2",
        source=SOURCE,
        statement="The staler the rollouts, the faster GRPO's entropy falls, the more tokens are clipped and the more "
        "gradients blow up, until training collapses; on-policy it is stable.",
        status="toy",
        claims=(
            "bapo/staleness-clips-more",
            "bapo/staleness-lowers-entropy",
            "bapo/reuse-lowers-entropy",
            "bapo/staleness-gradients",
        ),
        reason="Staleness is the age of a rollout in three of the claims and the passes over it, the paper's sense, in "
        "the fourth. Collapse needs shared parameters.",
    )
)
file_entry(
    Entry(
        number="B3",
        source=SOURCE,
        statement="Positive tokens are a minority throughout GRPO training, in number and in their share of the loss; "
        "responses to hard prompts are longer.",
        status="toy",
        claims=(
            "bapo/positive-tokens-are-a-minority",
            "bapo/positive-minority-when-wrong-is-longer",
            "bapo/balanced-on-policy",
            "bapo/length-lowers-the-positive-share",
            "bapo/gate-lowers-the-positive-share",
            "bapo/baseline-moves-the-positive-share",
        ),
        reason="That responses to hard prompts are longer is a property of language models; the claims judge what "
        "follows from it.",
    )
)
file_entry(
    Entry(
        number="B4",
        source=SOURCE,
        statement="Raising only the upper bound improves the score and counteracts the decay of entropy; lowering only "
        "the lower bound hurts and accelerates the collapse.",
        status="toy",
        claims=(
            "bapo/raising-the-upper-bound",
            "bapo/lowering-the-lower-bound",
            "bapo/lowering-the-lower-bound-hurts",
            "bapo/entropy-rule-as-printed",
            "bapo/entropy-rule-with-the-probability",
        ),
        reason="The rule is the paper's explanation of it (eq. 6). The score of a benchmark needs a language model.",
    )
)
file_entry(
    Entry(
        number="B5",
        source=SOURCE,
        statement="Tokens whose ratio is far from 1, on either side, have a low probability and a high entropy.",
        status="toy",
        claims=("bapo/leaving-tokens-are-uncertain", "ce-gppo/leaving-tokens-are-improbable"),
    )
)
file_entry(
    Entry(
        number="B6",
        source=SOURCE,
        statement="At staleness 2 and 4 BAPO reaches 60.9/62.0 on AIME24 against 58.3/54.2 with fixed bounds and "
        "58.3/59.2 with a higher upper bound; on AIME25 44.2/43.3 against 39.4/40.2 and 39.7/40.2.",
        status="llm",
        claims=(
            "bapo/reward-under-staleness",
            "bapo/entropy-against-its-starting-interval",
            "bapo/search-moves-at-equal-lengths",
            "bapo/search-moves-when-wrong-is-longer",
            "bapo/entropy-against-ppo-at-equal-lengths",
            "bapo/entropy-against-ppo-when-wrong-is-longer",
        ),
        configuration=f"{FINETUNE} Two and four passes over each rollout. {SMALLEST}",
        reason="The claims judge the mechanism: whether the search moves, and what it does to entropy and reward.",
    )
)
file_entry(
    Entry(
        number="B7",
        source=SOURCE,
        statement="Under partial rollouts BAPO is more stable than GRPO.",
        status="toy",
        claims=("bapo/steadier-under-partial-rollouts",),
        reason="Judged by the movement of the policy; no toy run becomes unstable.",
    )
)
file_entry(
    Entry(
        number="B8",
        source=SOURCE,
        statement="On OctoThinker-Llama-3B AIME24 rises from 2.5 to 5.4, AIME25 from 2.9 to 5.8 and MATH from 58.4 to "
        "66.0.",
        status="llm",
        configuration=f"{FINETUNE} With that paper's ranges for it: "
        "`bapo(low_range=(0.8,0.9),high_range=(1.2,2.0),target=0.45)`. " + SMALLEST,
        reason="The mechanism is judged under B6.",
    )
)
file_entry(
    Entry(
        number="B9",
        source=SOURCE,
        statement="The averages hardly depend on the target (66.7/66.7/66.1 for 0.40 to 0.50), the ranges (65.5 to "
        "66.9) or the steps (66.7 to 66.9).",
        status="toy",
        claims=(
            "bapo/insensitive-reward",
            "bapo/insensitive-regret",
            "bapo/order-of-the-search",
            "bapo/second-phase-cannot-help",
            "bapo/upper-first-reaches-more",
        ),
        reason="Ranges and steps are not varied; the order of the search, where paper and code differ, is.",
    )
)
