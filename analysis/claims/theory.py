"""Exact statements that every other claim stands on: no randomness, judged by their largest deviation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.statistics import Verdict
from analysis.theory import (
    bandit_flow,
    degenerate_groups,
    entropy_dynamics,
    gibbs,
    neutral_drift,
    normalisation_bias,
    predictions,
    sapo_gate,
    trust_region,
)
from analysis.theory.dcpo_bounds import lower_bound, upper_bound
from analysis.theory.gradient_weights import autograd_update, random_tokens, token_update

EXACT_SCOPE = "Exact, in float64, for the objectives of this project; no environment or model enters."


def _deviation(identifier: str) -> Callable[[], float]:
    """Largest error over the predictions filed under a number, each in multiples of its own tolerance."""

    def measure() -> float:
        compared = [item.compare() for item in predictions() if item.id == identifier]
        # numpy's maximum hands a NaN on, where Python's might hide it. Where nothing is allowed, anything is too much.
        return float(
            np.max(
                [found.error / found.tolerance if found.tolerance else found.error and math.inf for found in compared]
            )
        )

    return measure


def _register(
    name: str,
    identifier: str,
    title: str,
    source: str,
    statement: str,
    sabotage: str,
    measure: Callable[[], float],
    recorded: Verdict = "reproduced",
) -> None:
    register(
        ExactClaim(
            id=f"theory/{name}",
            paper="Theory",
            title=title,
            source=source,
            statement=statement,
            scope=EXACT_SCOPE,
            unit="multiples of each comparison's tolerance",
            measure=_deviation(identifier),
            tolerance=1.0,
            falsifier=Falsifier(sabotage, measure=measure),
            recorded=recorded,
        )
    )


def _off_policy_weights() -> float:
    tokens = random_tokens(0)
    weights = np.abs(token_update("ppo", tokens) / np.where(tokens.advantages == 0, 1, tokens.advantages))
    inside = weights[weights > 0]
    return float(np.abs(inside / inside.max() - 1).max() / 1e-12)


def _wrong_bound() -> float:
    tokens = random_tokens(0)
    return float(np.abs(token_update("ppo(clip_high=0.1)", tokens) - autograd_update("ppo", tokens)).max() / 1e-12)


def _ungated_rate() -> float:
    state = entropy_dynamics.random_state(0)
    ungated = float(entropy_dynamics.entropy_rate(state.logits, state.advantages))
    gated = float(entropy_dynamics.entropy_rate(state.logits, entropy_dynamics.gated_advantages("ppo", state)))
    return abs(ungated - gated) / 1e-14


def _swapped_offsets() -> float:
    old = np.geomspace(1e-3, 1.0, 20)
    swapped = np.stack([lower_bound(old, 0.2), upper_bound(old, 0.16)])
    return float(np.abs(swapped - np.stack([lower_bound(old), upper_bound(old)])).max() / 1e-12)


def _wrong_temperature() -> float:
    ratios = np.linspace(0.5, 2.0, 7)
    return float(np.abs(sapo_gate.gate(ratios, 1.0) - sapo_gate.gate(ratios, 1.05)).max() / 1e-12)


def _naive_threshold() -> float:
    """Tokens of a spread policy on which "surprisal above entropy" and the exact rule disagree."""
    logits = 2.0 * np.random.default_rng(0).normal(size=1000)
    policy = np.exp(logits) / np.exp(logits).sum()
    exact = entropy_dynamics.raises_entropy(logits, np.ones(logits.size))
    return float(((policy < entropy_dynamics.naive_threshold(logits)) != exact).sum())


def _wrong_gap() -> float:
    times = np.array([1.0, 10.0, 100.0])
    right, wrong = (bandit_flow.needle_gap(times, 10, gap, -2.0) for gap in (0.5, 0.4))
    return float(np.abs(right - wrong).max() / 1e-7)


def _wrong_penalty() -> float:
    reference, rewards = np.log([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.5])
    right, wrong = (gibbs.gibbs_log_policy(reference, rewards, beta) for beta in (0.5, 0.55))
    return float(np.abs(right - wrong).max() / 1e-12)


def _sampled_mass_only() -> float:
    """Error of the clip bound as a bound on drift: ε_low, as if the sampled tokens were all there is."""
    old, sampled = np.array([0.5, 0.3, 0.2]), np.array([True, False, False])
    return abs(trust_region.unsampled_worst_case(old, sampled, 0.2).total_variation - 0.2) / 1e-9


def _infinite_group() -> float:
    success = np.array([0.01, 0.1, 0.5])
    finite = normalisation_bias.standardised_factor(success, 16)
    return float(np.abs(normalisation_bias.standardised_factor_limit(success) - finite).max() / 1e-12)


def _forgotten_visits() -> float:
    success = np.array([0.01, 0.2, 0.5])
    shares = [degenerate_groups.mixed_share(success, 4, visits) for visits in (1, 3)]
    return float(np.abs(shares[0] - shares[1]).max() / 1e-12)


def _uniform_drift() -> float:
    """Error of the uniform policy's trace, -(K-1)/K², for a policy with one arm of probability 0.9."""
    arms = 100
    peaked = float(neutral_drift.trace(neutral_drift.flat_tail(0.9, arms)))
    return abs(peaked + (arms - 1) / arms**2) / 1e-14


_register(
    "on-policy-identity",
    "T1",
    "On-policy, all clipped objectives are one",
    "Follows from the objectives' equations (T1)",
    "At ratio 1 every objective with a clip, a gate or a band has the gradient weight 1, so they all take the "
    "same step.",
    "The weights are taken from a batch whose ratios differ from 1.",
    _off_policy_weights,
)
_register(
    "gradient-weights",
    "T2",
    "The shipped losses have the published gradients",
    "The papers' equations (T2)",
    "The gradient of every shipped loss equals the closed-form weight of its published equation.",
    "PPO's closed form uses an upper offset of 0.1 while the loss uses 0.2.",
    _wrong_bound,
)
_register(
    "entropy-rate",
    "T3",
    "Entropy moves at the rate of a gated covariance",
    "Entropy mechanism, arXiv 2505.22617, generalised to gated objectives (T3)",
    "Every gated objective moves the entropy of a softmax policy at the rate -Cov(π(log π + H), X·A), and a "
    "finite step "
    "departs from it in first order.",
    "The gate X is left out.",
    _ungated_rate,
)
_register(
    "dcpo-bounds",
    "T8",
    "DCPO's bounds",
    "DCPO, arXiv 2509.02333v2, eq. 4 and 27, and statement D9",
    "The bounds solve r(r-1)q = ε_high up to the cap and r(1-r)q = ε_low down to one half; a token with q > 1/1.2 can "
    "never be clipped from above.",
    "The two offsets are swapped.",
    _swapped_offsets,
)
_register(
    "sapo-gate",
    "T9",
    "SAPO's gate and its sequence limit",
    "SAPO, arXiv 2511.20347v2, eq. 5-9 and statement S3",
    "The gradient weight is r·sech²(τ(r-1)/2), and the mean token gate differs from the gate of the mean by at most "
    "(τ²/4)·Var of the log-ratios.",
    "The gate is evaluated at τ = 1.05 instead of 1.",
    _wrong_temperature,
)
_register(
    "raising-threshold",
    "T4",
    "Which sampled tokens raise the entropy",
    "Derived in analysis.theory.entropy_dynamics (T4)",
    "Sampled with a positive advantage, exactly the tokens below p* = exp(W(κ e^H) - H) raise the entropy, where W is "
    "Lambert's function.",
    "The rule quoted in papers, a surprisal above the entropy, takes the place of the threshold.",
    _naive_threshold,
)
_register(
    "bandit-flow",
    "T5",
    "The needle's escape and the replicator",
    "Derived in analysis.theory.bandit_flow (T5)",
    "The policy-gradient flow of the needle bandit, its regret and the natural-gradient flow follow their closed "
    "forms.",
    "The needle's advantage is 0.4 in one of the two and 0.5 in the other.",
    _wrong_gap,
)
_register(
    "gibbs-optimum",
    "T6",
    "Regularised optima",
    "Known for distributions; derived for automata in analysis.theory.gibbs (T6)",
    "Dynamic programming finds the Gibbs optimum over all responses, and for a right-or-wrong reward its success and "
    "divergence are the two Bernoulli closed forms.",
    "The optimum is computed at a penalty of 0.55 instead of 0.5.",
    _wrong_penalty,
)
_register(
    "trust-region-drift",
    "T7",
    "Clipped ratios of the sampled tokens do not bound the drift",
    "Derived in analysis.theory.trust_region (T7)",
    "With every sampled ratio inside its interval the total variation can reach M + ε_low·Q - q_min and no more, while "
    "a single tabular softmax step stays below εQ + M tanh(δ/4).",
    "The clip's own offset is taken for a bound on the total variation.",
    _sampled_mass_only,
)
_register(
    "normalisation-bias",
    "T10",
    "What group normalisations do to the expected gradient",
    "Dr. GRPO, arXiv 2503.20783, for the direction; exact factors derived in analysis.theory.normalisation_bias (T10)",
    "Group standardisation multiplies the gradient of a success probability by c_G(p), centring by (G-1)/G, and a mean "
    "per response follows the gradient of a surrogate reward divided by the length.",
    "The textbook factor of an infinite group, 1/√(p(1-p)), takes the place of c_G(p).",
    _infinite_group,
)
_register(
    "degenerate-groups",
    "T11",
    "How many groups carry a gradient",
    "Counting, for DCPO, arXiv 2509.02333v2, and DAPO, arXiv 2503.14476v2 (T11)",
    "The share of groups with a non-zero advantage is 1 - pⁿ - (1-p)ⁿ with n = iG at the i-th visit, its mean over a "
    "Beta pool is a ratio of Beta functions, and resampling costs its reciprocal.",
    "Earlier visits are forgotten.",
    _forgotten_visits,
)
_register(
    "neutral-drift",
    "T12",
    "Noise alone moves the entropy",
    "Derived in analysis.theory.neutral_drift (T12)",
    "Random rewards move the entropy by (η²/2N) tr(∇²H F): down for spread policies, up for peaked ones, with the sign "
    "changing at one top probability over a flat tail.",
    "The uniform policy's trace is used for a peaked one.",
    _uniform_drift,
)
