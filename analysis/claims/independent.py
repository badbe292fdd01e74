"""Claims of other papers that bear on the five: trust regions, weights of one, and the law of entropy and reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import Estimand, Measure, at_matched, average, difference, final, largest, value_of
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD, STALE
from analysis.trajectories import Trajectories

Array = NDArray[np.float64]
PAPER = "Independent"
GRPO, REINFORCE = "grpo(reduction=token_mean)", "reinforce"
RARE_ARM = MODULAR_SUM | {"env": "RareArm-v1", "steps": 100, "learning_rate": 32.0}
RARE_SCOPE = (
    "RareArm-v1: 16 contexts, 100 arms, the best arm with initial probability 0.01, tabular policy; learning rate 32, "
    "twice the best one of the unclipped ratio objective."
)
UNCLIPPED = {"objective": "ppo(clip_low=1e9,clip_high=1e9)"}
DPPO = {"objective": "dppo"}


def _rise(metric: str) -> Measure:
    highest = largest(metric)
    return Measure(f"{highest.description} - its initial value", lambda run: highest.read(run) - run[metric][0])


register(
    StatisticalClaim(
        id="independent/bapo-entropy-explodes",
        paper=PAPER,
        title="BAPO's entropy explodes under staleness",
        source="VESPO, arXiv 2602.10693v3, statement X2",
        statement="With rollouts of eight iterations ago BAPO's entropy rises at least half a nat above its start.",
        scope="Tabular policy on modular sum with twelve tokens, staleness 8, learning rate 16, 60 rollouts. The paper "
        "trained a mixture of experts for more than a thousand steps.",
        unit="nats per response",
        setting=STALE,
        arms={"bapo": {"objective": "bapo(reduction=token_mean)"}, "ppo": {"objective": "ppo"}},
        estimand=value_of(_rise("exact/entropy"), "bapo"),
        direction="greater",
        threshold=0.5,
        null=Null(NULL_REWARD | {"staleness": 8}, value_of(_rise("exact/entropy"), "bapo")),
        acts=(("bapo", "band/outside_fraction"),),
        falsifier=Falsifier("BAPO is replaced by PPO with fixed bounds.", {"bapo": {"objective": "ppo"}}),
        recorded="refuted",
        tier="full",
        notes=("A table has no parameter that noise on one prompt could spread from to the others.",),
    )
)
register(
    StatisticalClaim(
        id="independent/divergence-mask-protects-reward",
        paper=PAPER,
        title="A trust region prevents lock-in",
        source="DPPO, arXiv 2602.04879v3, statement X3",
        statement="Stopping tokens whose probability moved by more than 0.15 lowers the mean regret by at least 0.1 "
        "against no trust region at all.",
        scope=RARE_SCOPE,
        unit="reward",
        setting=RARE_ARM,
        arms={"dppo": DPPO, "unclipped": UNCLIPPED},
        estimand=difference(average("exact/regret"), of="dppo", minus="unclipped"),
        direction="less",
        threshold=-0.1,
        acts=(("dppo", "dppo/masked_fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier(
            "The divergence at which a token is stopped is raised to 0.99.",
            {"dppo": {"objective": "dppo(threshold=0.99)"}},
        ),
        recorded="reproduced",
        notes=("At the unclipped objective's best learning rate, half of this one, the two are alike.",),
        seeds=80,
    )
)
register(
    StatisticalClaim(
        id="independent/truncated-ratios-hurt",
        paper=PAPER,
        title="Truncating the ratios hurts",
        source="DPPO, arXiv 2602.04879v3, statement X3",
        statement="Truncating DPPO's ratios at 3 raises its mean regret by at least 0.05.",
        scope=RARE_SCOPE,
        unit="reward",
        setting=RARE_ARM,
        arms={"truncated": {"objective": "dppo(ratio_max=3.0)"}, "dppo": DPPO},
        estimand=difference(average("exact/regret"), of="truncated", minus="dppo"),
        direction="greater",
        threshold=0.05,
        acts=(("dppo", "dppo/masked_fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier("The ratios are truncated at 1.5.", {"truncated": {"objective": "dppo(ratio_max=1.5)"}}),
        recorded="refuted",
        notes=(
            "The opposite happens: a ratio that grew large under one lucky reward is what locks the policy in here, "
            "and a cap on its weight is a smaller step.",
        ),
        seeds=80,
    )
)

WEIGHT_ONE_ARMS = {"weight one": {"objective": REINFORCE}, "grpo": {"objective": GRPO}}
WEIGHT_ONE_SCOPE = (
    "Tabular policy on modular sum, learning rate 16, four passes over each rollout. Weight one is reinforcement of "
    "the log-probability, with neither ratio nor clip."
)
register(
    StatisticalClaim(
        id="independent/weight-one-keeps-entropy",
        paper=PAPER,
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


def _spent_early(run: Trajectories, part: int, share: float) -> Array:
    entropy = run["exact/entropy"]
    early = entropy[0] - entropy[(len(entropy) - 1) // part]
    return np.asarray(early - share * (entropy[0] - entropy[-1]), dtype=np.float64)


register(
    StatisticalClaim(
        id="independent/entropy-is-spent-early",
        paper=PAPER,
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


for name, env, size, recorded in (
    ("exponential-law-few-actions", "ModularSum-v1", "16 actions a token, modular sum", "reproduced"),
    ("exponential-law-many-actions", "MultiCorrectBandit-v1", "100 actions, ten of them right", "refuted"),
):
    register(
        StatisticalClaim(
            id=f"independent/{name}",
            paper=PAPER,
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
            curves=("exact/token_entropy", "exact/return"),
            falsifier=Falsifier(
                "A bandit with a hundred arms of which one pays well, where theory has a straight line.",
                {"grpo": {"objective": GRPO, "env": "RareArm-v1"}},
            ),
            seeds=80,
            recorded=recorded,  # type: ignore[arg-type]
            notes=(
                "Theory (the one-good-arm curve) has the exponential for few actions and a straight line for many.",
            ),
        )
    )
