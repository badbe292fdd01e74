"""Claims of BAPO: clip bounds adapted to the balance of positive and negative tokens."""

from __future__ import annotations

import numpy as np
import torch

from analysis.claims._claim import ExactClaim, Falsifier, StatisticalClaim, register
from analysis.claims._estimands import at_matched, average, contrast, difference, final, value_of
from analysis.claims._settings import MODULAR_SUM
from analysis.theory.gradient_weights import random_tokens
from testbed.batch import TokenBatch
from testbed.objectives.bapo import BAPO

PAPER = "BAPO"
CITATION = "Xi et al., arXiv 2510.18927v1"
SCOPE = "Tabular policy on modular sum, learning rate 16, four passes over each rollout."
PPO = {"objective": "ppo"}

register(
    StatisticalClaim(
        id="bapo/raising-the-upper-bound",
        paper=PAPER,
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
        acts=(("upper 1.2", "clip/high_fraction"),),
        seeds=64,
        falsifier=Falsifier(
            "The upper bound is lowered to 1.05 instead of raised.",
            {"upper 1.4": {"objective": "ppo(clip_high=0.05)"}},
        ),
        recorded="reproduced",
    )
)
register(
    StatisticalClaim(
        id="bapo/lowering-the-lower-bound",
        paper=PAPER,
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
        acts=(("lower 0.8", "clip/low_fraction"),),
        falsifier=Falsifier(
            "The lower bound is raised to 0.95 instead of lowered.",
            {"lower 0.6": {"objective": "ppo(clip_low=0.05)"}},
        ),
        recorded="reproduced",
    )
)
register(
    StatisticalClaim(
        id="bapo/lowering-the-lower-bound-hurts",
        paper=PAPER,
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
register(
    StatisticalClaim(
        id="bapo/staleness-clips-more",
        paper=PAPER,
        title="Stale rollouts clip more tokens",
        source=f"{CITATION}, statement B2",
        statement="With rollouts eight iterations old, GRPO clips more than twice the share of tokens it clips with "
        "fresh ones.",
        scope=SCOPE,
        unit="share of response tokens",
        setting=MODULAR_SUM,
        arms={"stale": {"objective": "grpo", "staleness": 8}, "fresh": {"objective": "grpo"}},
        estimand=contrast(average("clip/fraction"), of="stale", minus="fresh", times=2.0),
        direction="greater",
        threshold=0.0,
        planted=0.06,
        acts=(("fresh", "clip/fraction"),),
        curves=("clip/fraction", "exact/regret"),
        falsifier=Falsifier("The stale arm gets fresh rollouts.", {"stale": {"objective": "grpo"}}),
        recorded="reproduced",
    )
)
register(
    StatisticalClaim(
        id="bapo/staleness-lowers-entropy",
        paper=PAPER,
        title="Stale rollouts make the entropy fall faster",
        source=f"{CITATION}, statement B2",
        statement="With rollouts eight iterations old, GRPO's entropy at equal reward is at least 0.1 nats lower than "
        "with fresh ones.",
        scope=f"{SCOPE} Entropy of a response where the exact return first reaches 0.8, 200 iterations.",
        unit="nats per response",
        setting=MODULAR_SUM | {"steps": 200},
        arms={"stale": {"objective": "grpo", "staleness": 8}, "fresh": {"objective": "grpo"}},
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.8), of="stale", minus="fresh"),
        direction="less",
        threshold=-0.1,
        acts=(("stale", "clip/fraction"),),
        falsifier=Falsifier("The stale arm gets fresh rollouts.", {"stale": {"objective": "grpo"}}),
        recorded="refuted",
        notes=(
            "At equal iterations the stale run also has the higher entropy, because it learns more slowly; matching "
            "the reward removes that and leaves the sign unchanged.",
        ),
    )
)
register(
    StatisticalClaim(
        id="bapo/positive-tokens-are-a-minority",
        paper=PAPER,
        title="Positive tokens are a minority of the loss",
        source=f"{CITATION}, statement B3",
        statement="During GRPO training positive tokens carry less than half of the loss.",
        scope=f"{SCOPE} All responses have the same length; with centred advantages the share on-policy is exactly one "
        "half, so an imbalance can only come from ratios, from length, or from a baseline that is not the mean.",
        unit="share of Σ|rA|",
        setting=MODULAR_SUM,
        arms={"grpo": {"objective": "grpo"}},
        estimand=value_of(average("advantage/positive_loss_fraction"), "grpo"),
        direction="less",
        threshold=0.5,
        acts=(("grpo", "clip/fraction"),),
        curves=("advantage/positive_loss_fraction", "advantage/positive_token_fraction"),
        falsifier=Falsifier(
            "The baseline is removed, so that every reward counts as positive.",
            {"grpo": {"objective": "grpo", "advantage": "none"}},
        ),
        recorded="refuted",
    )
)


def _largest_rise(contribution: str) -> float:
    """Largest increase of the positive share when the lower bound rises by a step, over random batches."""
    worst = -np.inf
    for seed in range(20):
        tokens = random_tokens(seed)
        batch = TokenBatch(
            log_probs=torch.tensor(tokens.log_probs),
            old_log_probs=torch.tensor(tokens.old_log_probs),
            advantages=torch.tensor(tokens.advantages),
            mask=torch.tensor(tokens.mask),
        )
        lows = torch.linspace(0.6, 0.9, 16, dtype=torch.float64)
        objective = BAPO(contribution=contribution)  # type: ignore[arg-type]
        shares = objective.positive_shares(batch, lows, torch.full_like(lows, 3.0))
        worst = max(worst, float(shares.diff().max()))
    return max(worst, 0.0)


register(
    ExactClaim(
        id="bapo/second-phase-cannot-help",
        paper=PAPER,
        title="Raising the lower bound never raises the measured share",
        source=f"{CITATION}, eq. 8 and algorithm 1 (a consequence the paper does not state)",
        statement="The positive share ρ of eq. 8 as printed never rises with the lower bound, so the second "
        "phase of the "
        "search cannot reach its target.",
        scope="Exact, on random batches with ratios on both sides of every bound. It concerns the printed formula; "
        "counting only tokens that keep a gradient does raise the share, and that is the falsifier.",
        unit="share of Σ|min(rA, clip(r)A)|",
        measure=lambda: _largest_rise("value"),
        tolerance=1e-15,
        falsifier=Falsifier(
            "Only tokens that keep a gradient are counted, as the paper's text describes.",
            measure=lambda: _largest_rise("active"),
        ),
        recorded="reproduced",
    )
)
