"""The numbered statements of SAPO (Gao et al., arXiv 2511.20347v2)."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "SAPO"

file_entry(
    Entry(
        number="S1",
        source=SOURCE,
        statement="Qwen3-30B-A3B-Base from a cold start, four mini-batches a rollout: GSPO and GRPO with routing "
        "replay collapse early, SAPO stays stable for longer and ends higher on AIME25, HMMT25 and BeyondAIME.",
        status="small",
        claims=(
            "sapo/staleness-reward",
            "sapo/staleness-reward-equal-rate",
            "sapo/shared-parameters-reward",
            "sapo/extreme-staleness",
            "sapo/extreme-staleness-shared",
        ),
        configuration="On language models: `testbed finetune cpu-moe.yaml` with `objective: sapo`, `gspo` and `grpo`. "
        "Smallest honest version: a mixture of experts of about 1B active parameters on GSM8K for 1000 steps, five "
        "seeds, each objective's learning rate from one grid.",
        reason="None of the toy policies collapses, so what is judged is the reward reached, not the time to a "
        "collapse.",
    )
)
file_entry(
    Entry(
        number="S2",
        source=SOURCE,
        statement="τ_neg = 1.05 is more stable than 1.0, and 1.0 more stable than 0.95, at τ_pos = 1.",
        status="toy",
        claims=("sapo/tau-order", "sapo/tau-order-wide"),
        reason="The published three values differ by a few percent of a gate that is nearly flat; the order shows over "
        "a range eight times as wide and at large updates. A large vocabulary of irrelevant tokens, the paper's reason "
        "for the asymmetry, is not simulated.",
    )
)
file_entry(
    Entry(
        number="S3",
        source=SOURCE,
        statement="Ratios concentrate at 1 and log-ratios disperse by less than 0.02 within a response, more in a "
        "mixture of experts than in a dense model, so that SAPO's gate is a gate on the sequence to within 0.005.",
        status="small",
        claims=("theory/sapo-gate", "sapo/ratios-stay-close", "sapo/replay-narrows-ratios"),
        reason="The bound on the gate is exact, the size of the dispersion a matter of the step. That experts widen it "
        "is judged within one model, by replaying their choice; a dense and a mixed model of the same width do not "
        "move equally far at one learning rate.",
    )
)
file_entry(
    Entry(
        number="S4",
        source=SOURCE,
        statement="SAPO needs no routing replay on a mixture of experts.",
        status="small",
        claims=("sapo/needs-no-replay", "sapo/grpo-needs-replay", "sapo/replay-narrows-ratios"),
        configuration="On language models: `testbed finetune cpu-moe.yaml` with `objective: sapo` and `grpo`, with and "
        "without `routing_replay`.",
        reason="One block of eight small experts; a language model has dozens of layers of them.",
    )
)
file_entry(
    Entry(
        number="S5",
        source=SOURCE,
        statement="Gains on Qwen3-VL over sizes and tasks, as curves; all methods may destabilise in the end.",
        status="out of reach",
        claims=("sapo/shared-parameters-reward",),
        reason="Vision-language models and their data are outside this project, and the curves have no published end "
        "points to compare with; the claim judges the comparison on a small text model.",
    )
)
