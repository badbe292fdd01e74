"""X5. The law of entropy and reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.claims.independent import PAPER
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import Array, Estimand
from analysis.judging.settings import MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from analysis.statistics import Verdict
from analysis.trajectories import Trajectories

file_entry(
    Entry(
        number="X5",
        source=PAPER,
        statement="Entropy law: 73 % of the entropy and 76 % of the gain are spent in the first twelfth of training, "
        "and R = -a·exp(H) + b predicts the rest; Clip-Cov and KL-Cov raise the 7B average from 38.6 to 40.4 and 40.6.",
        status="toy",
        reason="The benchmark averages of Clip-Cov and KL-Cov need the paper's models.",
    )
)

GRPO = "grpo(reduction=token_mean)"


def _spent_early(run: Trajectories, part: int, share: float) -> Array:
    entropy = run["exact/entropy"]
    early = entropy[0] - entropy[(len(entropy) - 1) // part]
    return np.asarray(early - share * (entropy[0] - entropy[-1]), dtype=np.float64)


register(
    StatisticalClaim(
        id="independent/entropy-is-spent-early",
        paper=PAPER,
        judges=("X5",),
        title="Most of the entropy is spent early",
        source="Cui et al., arXiv 2505.22617v1, statement X5",
        statement="More than half of the entropy that training spends is spent in its first twelfth.",
        scope="GRPO, tabular policy on modular sum, learning rate 16, 60 rollouts, so within the first five.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"grpo": {"objective": GRPO}},
        estimand=Estimand(
            "[grpo] entropy spent in the first twelfth of the rollouts - 0.5 × entropy spent in all",
            lambda runs: _spent_early(runs["grpo"], 12, 0.5),
            frozenset({"grpo"}),
        ),
        direction="greater",
        threshold=0.0,
        planted=0.5,
        null=Null(
            NULL_REWARD,
            Estimand(
                "[grpo] entropy spent in the first twelfth of the rollouts - 0.5 × entropy spent in all",
                lambda runs: _spent_early(runs["grpo"], 12, 0.5),
                frozenset({"grpo"}),
            ),
        ),
        curves=("exact/entropy", "exact/return"),
        falsifier=Falsifier(
            "A quarter of the learning rate spreads the learning over the whole run.",
            {"grpo": {"objective": GRPO, "learning_rate": 4.0}},
        ),
        recorded="refuted",
        notes=("What a twelfth of training is depends on when training is stopped.",),
    )
)


def _fit(entropy: Array, value: Array, transform: Callable[[Array], Array]) -> Array:
    """R² of a straight line from the transformed entropy to the return, per seed."""
    features = transform(entropy)
    centred = features - features.mean(0)
    residual = value - value.mean(0)
    explained = (centred * residual).sum(0) ** 2 / (centred**2).sum(0)
    return np.asarray(explained / (residual**2).sum(0), dtype=np.float64)


def _advantage_of_exponential(run: Trajectories) -> Array:
    entropy, value = run["exact/token_entropy"], run["exact/return"]
    return _fit(entropy, value, np.exp) - _fit(entropy, value, lambda values: values)


def _exponential_law(name: str, *, env: str, size: str, recorded: Verdict) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"independent/{name}",
        paper=PAPER,
        judges=("X5",),
        title=f"Reward as an exponential of entropy, {size.partition(',')[0]}",
        source="Cui et al., arXiv 2505.22617v1, R = -a·exp(H) + b, statement X5",
        statement="Over training the return is a straight line in the exponential of the entropy per token "
        "rather than in the entropy itself: the former explains more of its variance.",
        scope=f"GRPO, tabular policy, {size}, learning rate 16, 60 rollouts; shares of variance explained.",
        unit="R²",
        setting=MODULAR_SUM | {"env": env},
        arms={"grpo": {"objective": GRPO}},
        estimand=Estimand(
            "[grpo] R² of the return on exp(exact/token_entropy) - R² on exact/token_entropy, over the rollouts",
            lambda runs: _advantage_of_exponential(runs["grpo"]),
            frozenset({"grpo"}),
        ),
        direction="greater",
        threshold=0.0,
        planted=0.01,
        why_no_null="Without a reward there is no reward to explain by the entropy.",
        curves=("exact/token_entropy", "exact/return"),
        falsifier=Falsifier(
            "A bandit with a hundred arms of which one pays well, where theory has a straight line.",
            {"grpo": {"objective": GRPO, "env": "RareArm-v1"}},
        ),
        seeds=80,
        recorded=recorded,
        notes=("Theory (the one-good-arm curve) has the exponential for few actions and a straight line for many.",),
    )


register(
    _exponential_law(
        "exponential-law-few-actions",
        env="ModularSum-v1",
        size="16 actions a token, modular sum",
        recorded="reproduced",
    )
)
register(
    _exponential_law(
        "exponential-law-many-actions",
        env="MultiCorrectBandit-v1",
        size="100 actions, ten of them right",
        recorded="refuted",
    )
)
