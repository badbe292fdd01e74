"""X4. ASPO's report on ratios replaced by one."""

from __future__ import annotations

from analysis.claims.independent import PAPER, UNCLIPPED
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, difference, final
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="X4",
        source=PAPER,
        statement="ASPO: GRPO with its ratios replaced by one matches GRPO's accuracy, with a slower decay of entropy.",
        status="toy",
    )
)

GRPO, REINFORCE = "grpo(reduction=token_mean)", "reinforce"

WEIGHT_ONE_ARMS = {"weight one": {"objective": REINFORCE}, "grpo": {"objective": GRPO}}

WEIGHT_ONE_SCOPE = (
    "Tabular policy on modular sum, learning rate 16, four passes over each rollout. Weight one is reinforcement of "
    "the log-probability, with neither ratio nor clip."
)

register(
    StatisticalClaim(
        id="independent/weight-one-keeps-entropy",
        paper=PAPER,
        judges=("X4",),
        title="Without ratios entropy falls more slowly",
        source="ASPO, arXiv 2510.06062v2, statement X4",
        statement="Replacing GRPO's ratios by weights of one raises the entropy at equal reward by at least 0.2 nats.",
        scope=f"{WEIGHT_ONE_SCOPE} Entropy of a response where the exact return first reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms=WEIGHT_ONE_ARMS,
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.9), of="weight one", minus="grpo"),
        direction="greater",
        threshold=0.2,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="weight one", minus="grpo")),
        controls=(difference(AT_DIVERGENCE, of="weight one", minus="grpo"),),
        acts=(("grpo", "clip/fraction"),),
        falsifier=Falsifier("Both arms keep their ratios, one without a clip.", {"weight one": UNCLIPPED}),
        recorded="refuted",
        notes=(
            "Without ratios there is no clip either: negative tokens that became rare keep their full weight, which "
            "lowers entropy. In the paper the ratio is replaced inside a clipped objective.",
        ),
        seeds=160,
    )
)

register(
    StatisticalClaim(
        id="independent/weight-one-matches-return",
        paper=PAPER,
        judges=("X4",),
        title="Without ratios the reward is the same",
        source="ASPO, arXiv 2510.06062v2, statement X4",
        statement="Replacing GRPO's ratios by weights of one changes the final return by less than 0.05.",
        scope=WEIGHT_ONE_SCOPE,
        unit="reward",
        setting=MODULAR_SUM,
        arms=WEIGHT_ONE_ARMS,
        estimand=difference(final("exact/return"), of="weight one", minus="grpo"),
        direction="equivalent",
        threshold=0.05,
        planted=0.0,
        acts=(("grpo", "clip/fraction"),),
        curves=("exact/return", "exact/entropy"),
        falsifier=Falsifier(
            "The arm without ratios learns at a quarter of the rate.",
            {"weight one": {"objective": REINFORCE, "learning_rate": 4.0}},
        ),
        recorded="reproduced",
    )
)
