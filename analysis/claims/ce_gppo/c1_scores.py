"""C1. Scores over five benchmarks, as regret where solutions are rare."""

from __future__ import annotations

from analysis.claims.ce_gppo import CITATION, FINETUNE, PAPER, RARE_ARM, SMALLEST
from analysis.judging.claim import Falsifier, StatisticalClaim, Tuning, register
from analysis.judging.estimands import average, difference
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="C1",
        source=PAPER,
        statement="CE-GPPO gains 2.5 points (1.5B) and 3.0 points (7B) over DAPO on the average of five benchmarks, "
        "and more over GRPO.",
        status="llm",
        configuration=f"{FINETUNE} {SMALLEST}",
        reason="The claim judges the mechanism, learning speed where solutions are rare: ahead at one learning rate, "
        "not ahead when each objective has its own.",
    )
)

register(
    StatisticalClaim(
        id="ce-gppo/rare-solution-regret",
        paper=PAPER,
        judges=("C1", "M8"),
        title="Less regret than DAPO where solutions are rare",
        source=f"{CITATION}, mechanism behind statement C1",
        statement="Each at its own best learning rate, CE-GPPO's mean regret is at least 0.02 below DAPO's.",
        scope="RareArm-v1: 16 contexts, 100 arms, the best arm with initial probability 0.01, 60 iterations, tabular "
        "policy. A benchmark score is something else.",
        unit="reward",
        setting=RARE_ARM | {"steps": 60},
        arms={"ce_gppo": {"objective": "ce_gppo"}, "dapo": {"objective": "dapo"}},
        estimand=difference(average("exact/regret"), of="ce_gppo", minus="dapo"),
        direction="less",
        threshold=-0.02,
        tuning=Tuning((16.0, 32.0, 64.0, 128.0, 256.0), average("exact/regret"), better="lower"),
        acts=(("ce_gppo", "band/outside_fraction"),),
        curves=("exact/regret", "exact/entropy"),
        falsifier=Falsifier(
            "β₂ = 0: the gradient of rare tokens that outran the bound is not restored.",
            {"ce_gppo": {"objective": "ce_gppo(beta2=0.0)"}},
        ),
        recorded="refuted",
        notes=(
            "At one learning rate of 16 for both CE-GPPO is ahead by 0.13; a larger learning rate of its own gives "
            "DAPO all of it back.",
        ),
        seeds=304,
        tier="full",
    )
)
