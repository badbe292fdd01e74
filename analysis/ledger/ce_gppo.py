"""The numbered statements of CE-GPPO (Su et al., arXiv 2509.20712v5)."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "CE-GPPO"
FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: ce_gppo(beta1=0.5,beta2=1.0)` against `dapo` and "
    "`grpo`, several updates a rollout, each objective's learning rate chosen from one grid."
)
SMALLEST = "Smallest honest version: `qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."

file_entry(
    Entry(
        number="C1",
        source=SOURCE,
        statement="CE-GPPO gains 2.5 points (1.5B) and 3.0 points (7B) over DAPO on the average of five benchmarks, "
        "and more over GRPO.",
        status="llm",
        claims=("ce-gppo/rare-solution-regret",),
        configuration=f"{FINETUNE} {SMALLEST}",
        reason="The claim judges the mechanism, learning speed where solutions are rare: ahead at one learning rate, "
        "not ahead when each objective has its own.",
    )
)
file_entry(
    Entry(
        number="C2",
        source=SOURCE,
        statement="Entropy decays fastest at (β₁, β₂) = (1, ½), slowest at (0, 1), where it even rises early on 7B, "
        "and most steadily at (¾, 1).",
        status="toy",
        claims=(
            "ce-gppo/order-of-decay",
            "ce-gppo/beta1-lowers-entropy",
            "ce-gppo/beta2-raises-entropy",
            "ce-gppo/null-reward-order",
            "ce-gppo/four-classes",
        ),
        reason="Which of the settings is steadiest is not judged: the paper names no measure of it.",
    )
)
file_entry(
    Entry(
        number="C3",
        source=SOURCE,
        statement="Losing entropy too fast (1, ½) lowers the accuracy after a while; keeping too much of it (0, 1) "
        "brings no gain.",
        status="toy",
        claims=(
            "ce-gppo/fast-decay-costs-reward",
            "ce-gppo/fast-decay-costs-reward-of-many-solutions",
            "ce-gppo/high-entropy-gains-nothing",
        ),
        reason="Whether early entropy is worth reward depends on whether solutions are rare.",
    )
)
file_entry(
    Entry(
        number="C4",
        source=SOURCE,
        statement="An entropy bonus is fragile: a coefficient of 0.001 still collapses to about 0.06 nats, as GRPO "
        "without one does, and 0.003 explodes.",
        status="toy",
        claims=("ce-gppo/entropy-bonus-is-fragile",),
        configuration="On language models: `testbed finetune` with `objective: entropy_bonus(base=grpo,"
        f"coefficient=0.001)` and 0.003. {SMALLEST}",
        reason="The toy's vocabulary has 16 tokens; the explosion is that of a vocabulary of 150,000.",
    )
)
file_entry(
    Entry(
        number="C5",
        source=SOURCE,
        statement="The divergence from the old policy and the gradient norm stay as stable as GRPO's.",
        status="toy",
        claims=("ce-gppo/divergence-like-grpo", "ce-gppo/gradient-norm-like-grpo", "ce-gppo/gradient-norm-steadiness"),
        reason="How much restored gradients move a policy depends on the share of clipped tokens, a few percent here.",
    )
)
file_entry(
    Entry(
        number="C6",
        source=SOURCE,
        statement="CISPO collapses late (average 47.6) and GSPO, clipping about 15 % of the tokens, reaches 54.3 "
        "against CE-GPPO's 54.9.",
        status="toy",
        claims=("ce-gppo/cispo-collapses-late",),
        configuration="On language models: `testbed finetune` with `objective: cispo(clip_low=0.2)` against `ce_gppo`, "
        f"1,000 steps. {SMALLEST}",
        reason="A table does not collapse; the score of GSPO needs a language model.",
    )
)
file_entry(
    Entry(
        number="C7",
        source=SOURCE,
        statement="Clipped tokens are predominantly improbable ones; probable tokens stay inside the interval.",
        status="toy",
        claims=("ce-gppo/leaving-tokens-are-improbable",),
    )
)
file_entry(
    Entry(
        number="C8",
        source=SOURCE,
        statement="Switching from (0, 1) to (½, 1) at step 585 lowers the entropy and raises the accuracy.",
        status="llm",
        claims=("ce-gppo/order-of-decay", "ce-gppo/high-entropy-gains-nothing"),
        configuration="Two runs of `testbed finetune` with `qwen2.5-1.5b-math.yaml`, the first with "
        "`objective: ce_gppo(beta1=0.0)`, the second starting from the first one's `model/` with "
        f"`objective: ce_gppo(beta1=0.5)`, against one that goes on unchanged. {SMALLEST}",
        reason="Out of the simulator's scope, which keeps hyper-parameters for a whole run; the claims judge what the "
        "two settings do when each is used throughout.",
    )
)
file_entry(
    Entry(
        number="C9",
        source=SOURCE,
        statement="DAPO's entropy rises early and rebounds after about step 300.",
        status="toy",
        claims=("ce-gppo/dapo-entropy-rises-first",),
        reason="The rebound is not judged: it is one feature of one curve.",
    )
)
