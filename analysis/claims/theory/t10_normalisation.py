"""T10. What group normalisations do."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.claims.mechanisms import BASELINES
from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import at_matched, difference, final, quotient
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import normalisation_bias

file_entry(
    Entry(
        number="T10",
        source=PAPER,
        statement="The factors of group standardisation and centring on the expected gradient, and the "
        "surrogate reward of a mean per response.",
        status="exact",
    )
)


def _infinite_group() -> float:
    success = np.array([0.01, 0.1, 0.5])
    finite = normalisation_bias.standardised_factor(success, 16)
    return float(np.abs(normalisation_bias.standardised_factor_limit(success) - finite).max() / 1e-12)


register(
    exact_statement(
        "normalisation-bias",
        number="T10",
        title="What group normalisations do to the expected gradient",
        source="Dr. GRPO, arXiv 2503.20783, for the direction; exact factors derived in "
        "analysis.theory.normalisation_bias (T10)",
        statement="Group standardisation multiplies the gradient of a success probability by c_G(p), centring "
        "by (G-1)/G, and a mean per response follows the gradient of a surrogate reward divided by "
        "the length.",
        sabotage="The textbook factor of an infinite group, 1/√(p(1-p)), takes the place of c_G(p).",
        measure=_infinite_group,
    )
)

HARD, MEDIUM = "DifficultyMixture-v1(a=2,b=38,contexts=16)", "DifficultyMixture-v1(a=20,b=20,contexts=16)"


def _normalisation_arms(env: str) -> dict[str, dict[str, Any]]:
    # The factors on ∇p at p = ½ and G = 16 are 1.93 and 15/16, so these two rates are equal there.
    return {
        "standardised": {"objective": "ppo", "env": env, "advantage": "group_standardised", "learning_rate": 16.0},
        "centred": {"objective": "ppo", "env": env, "advantage": "group_centred", "learning_rate": 33.0},
    }


register(
    StatisticalClaim(
        id="baselines/standardisation-favours-hard-prompts",
        paper=BASELINES,
        judges=("T10",),
        title="The group's deviation gives hard prompts a larger step",
        source="Dr. GRPO, arXiv 2503.20783 (difficulty bias); exact factors in T10",
        statement="With rates that are equal on half-solved prompts, dividing by the group's deviation leads by at "
        "least 0.03 of reward after ten rollouts on prompts solved one time in twenty.",
        scope="Bandits with prompts of p ~ Beta(2, 38), groups of 16, tabular policy. Faster on hard prompts is not "
        "better in general: the same rate is too large elsewhere.",
        unit="reward",
        setting={"env": HARD, "steps": 10, "group_size": 16, "epochs": 2},
        arms=_normalisation_arms(HARD),
        estimand=difference(final("exact/return"), of="standardised", minus="centred"),
        direction="greater",
        threshold=0.03,
        curves=("exact/return", "gradient/norm"),
        falsifier=Falsifier("All prompts are solved half of the time.", _normalisation_arms(MEDIUM)),
        recorded="reproduced",
    )
)

LENGTH = quotient(
    at_matched("exact/entropy", "exact/return", 0.95), at_matched("exact/token_entropy", "exact/return", 0.95)
)

register(
    StatisticalClaim(
        id="baselines/length-bias",
        paper=BASELINES,
        judges=("T10",),
        title="A mean per response shortens right answers",
        source="Dr. GRPO, arXiv 2503.20783 (length bias); exact surrogate in T10",
        statement="Averaging tokens within a response makes responses at least half a token shorter than summing "
        "them, where both policies solve 95 % of the prompts.",
        scope="VariableLength-v1, where the reward of a right answer does not depend on its length; advantages without "
        "a deviation. At this reward nearly all responses are right ones; wrong ones, which the same bias lengthens, "
        "are too few to be seen.",
        unit="tokens",
        # A few runs wait on a plateau; by 50 rollouts all of 1,280 had left it.
        setting={"env": "VariableLength-v1", "steps": 60, "group_size": 16, "epochs": 4, "advantage": "group_centred"},
        arms={
            "mean": {"objective": "grpo(reduction=seq_mean_token_mean)", "learning_rate": 32.0},
            "sum": {"objective": "grpo(reduction=seq_mean_token_sum)", "learning_rate": 4.0},
        },
        estimand=difference(LENGTH, of="mean", minus="sum"),
        direction="less",
        threshold=-0.5,
        why_no_null="A quotient of two entropies is the length of a response.",
        curves=("exact/return", "exact/token_entropy"),
        falsifier=Falsifier(
            "The mean is taken over all tokens of the batch, which weighs every token alike.",
            {"mean": {"objective": "grpo(reduction=token_mean)", "learning_rate": 32.0}},
        ),
        recorded="reproduced",
        notes=("The two rates differ because a sum is several times a mean; the comparison is at equal reward.",),
    )
)
