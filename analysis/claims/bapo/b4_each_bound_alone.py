"""B4. Raising the upper bound, lowering the lower one, and the rule that explains both."""

from __future__ import annotations

import numpy as np

from analysis.claims.bapo import CITATION, PAPER, PPO, SCOPE
from analysis.judging.claim import ExactClaim, Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, difference, final
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.entropy_dynamics import entropy_gradient, gated_advantages, random_state

file_entry(
    Entry(
        number="B4",
        source=PAPER,
        statement="Raising only the upper bound improves the score and counteracts the decay of entropy; lowering only "
        "the lower bound hurts and accelerates the collapse.",
        status="toy",
        reason="The rule is the paper's explanation of it (eq. 6). The score of a benchmark needs a language model.",
    )
)

register(
    StatisticalClaim(
        id="bapo/raising-the-upper-bound",
        paper=PAPER,
        judges=("B4", "M4"),
        title="A higher upper bound counteracts entropy decay",
        source=f"{CITATION}, statement B4",
        statement="Raising only the upper bound from 1.2 to 1.4 keeps the entropy at equal reward at least 0.1 nats "
        "higher.",
        scope=f"{SCOPE} Entropy of a response where the exact return first reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"upper 1.4": {"objective": "ppo(clip_high=0.4)"}, "upper 1.2": PPO},
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.9), of="upper 1.4", minus="upper 1.2"),
        direction="greater",
        threshold=0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="upper 1.4", minus="upper 1.2")),
        controls=(difference(AT_DIVERGENCE, of="upper 1.4", minus="upper 1.2"),),
        acts=(("upper 1.2", "clip/high_fraction"),),
        seeds=336,
        falsifier=Falsifier(
            "The upper bound is lowered to 1.05 instead of raised.",
            {"upper 1.4": {"objective": "ppo(clip_high=0.05)"}},
        ),
        recorded="reproduced",
        tier="full",
    )
)

register(
    StatisticalClaim(
        id="bapo/lowering-the-lower-bound",
        paper=PAPER,
        judges=("B4",),
        title="A lower lower bound accelerates entropy decay",
        source=f"{CITATION}, statement B4",
        statement="Lowering only the lower bound from 0.8 to 0.6 leaves the entropy at equal reward at least 0.1 nats "
        "lower.",
        scope=f"{SCOPE} Entropy of a response where the exact return first reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"lower 0.6": {"objective": "ppo(clip_low=0.4)"}, "lower 0.8": PPO},
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.9), of="lower 0.6", minus="lower 0.8"),
        direction="less",
        threshold=-0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="lower 0.6", minus="lower 0.8")),
        controls=(difference(AT_DIVERGENCE, of="lower 0.6", minus="lower 0.8"),),
        acts=(("lower 0.8", "clip/low_fraction"),),
        falsifier=Falsifier(
            "The lower bound is raised to 0.95 instead of lowered.",
            {"lower 0.6": {"objective": "ppo(clip_low=0.05)"}},
        ),
        recorded="reproduced",
        seeds=272,
        tier="full",
    )
)

register(
    StatisticalClaim(
        id="bapo/lowering-the-lower-bound-hurts",
        paper=PAPER,
        judges=("B4",),
        title="A lower lower bound costs reward",
        source=f"{CITATION}, statement B4",
        statement="Lowering only the lower bound from 0.8 to 0.6 costs at least 0.005 of the final reward.",
        scope=f"{SCOPE} One task with many solutions and a reachable optimum; the paper's is a benchmark score after "
        "long training, where an entropy lost early may cost later.",
        unit="reward",
        setting=MODULAR_SUM,
        arms={"lower 0.6": {"objective": "ppo(clip_low=0.4)"}, "lower 0.8": PPO},
        estimand=difference(final("exact/return"), of="lower 0.6", minus="lower 0.8"),
        direction="less",
        threshold=-0.005,
        acts=(("lower 0.8", "clip/low_fraction"),),
        curves=("exact/regret", "exact/entropy"),
        falsifier=Falsifier("The lower bound stays where it is.", {"lower 0.6": PPO}),
        recorded="refuted",
        notes=("The lower bound also limits how fast wrong tokens are removed, so lowering it speeds this task up.",),
    )
)

# -- the entropy-clip rule -------------------------------------------------------------------------------------------


def _covariance(policy: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    return float((policy * first * second).sum() - (policy * first).sum() * (policy * second).sum())


def _entropy_rule_error(*, weighted: bool, gated: bool = True) -> float:
    """Largest relative error of -Cov(log π, …) against the shipped gradient, over random bandits and two objectives."""
    worst = 0.0
    for objective in ("ppo", "bapo"):
        for seed in range(10):
            state = random_state(seed)
            truth = float(entropy_gradient(state.logits) @ state.logit_step(objective))
            log_policy = state.logits - np.logaddexp.reduce(state.logits)
            policy = np.exp(log_policy)
            pull = gated_advantages(objective, state) if gated else state.advantages
            step = policy * (pull - (policy * pull).sum()) if weighted else pull
            worst = max(worst, abs(-_covariance(policy, log_policy, step) / truth - 1))
    return worst


register(
    ExactClaim(
        id="bapo/entropy-rule-as-printed",
        paper=PAPER,
        judges=("B4", "T3"),
        title="The entropy-clip rule as printed",
        source=f"{CITATION}, eq. 6",
        statement="Under a clipped update a softmax policy's entropy moves at the rate -Cov(log π, A·X + C), without a "
        "factor π.",
        scope="Exact, for 20 random bandits of 50 arms that have drifted since sampling, under PPO and BAPO. The "
        "constant C drops out of the covariance.",
        unit="relative error",
        measure=lambda: _entropy_rule_error(weighted=False),
        tolerance=1e-9,
        falsifier=Falsifier(
            "The clip indicator X is left out as well.",
            measure=lambda: _entropy_rule_error(weighted=False, gated=False),
        ),
        recorded="refuted",
        notes=(
            "The printed form is that of a natural-gradient step, dz = A·X, and exact for it. Over 300 such bandits it "
            "is off by a factor of 8 in the median, and has the wrong sign in one of eight.",
        ),
    )
)

register(
    ExactClaim(
        id="bapo/entropy-rule-with-the-probability",
        paper=PAPER,
        judges=("B4", "T3"),
        title="The entropy-clip rule with the factor π",
        source=f"{CITATION}, proposition 1 and eq. 6, with the factor π of the paper's own logit step",
        statement="Under a clipped update a softmax policy's entropy moves at the rate -Cov(log π, π·(A·X + C)) with "
        "C = -E[A·X].",
        scope="Exact, for 20 random bandits of 50 arms that have drifted since sampling, under PPO and BAPO.",
        unit="relative error",
        measure=lambda: _entropy_rule_error(weighted=True),
        tolerance=1e-9,
        falsifier=Falsifier(
            "The clip indicator X is left out.", measure=lambda: _entropy_rule_error(weighted=True, gated=False)
        ),
        recorded="reproduced",
    )
)
