"""What group normalisations do to the expected gradient: exact factors for binary rewards, at any group size.

Let a prompt be solved with probability p, let m of G responses succeed, and let s_i = ∇log π(y_i).

**Group standardisation** (population deviation). Given m, a success has A = √((1-m̂)/m̂) and a failure
-√(m̂/(1-m̂)) with m̂ = m/G, and the score of a response given its outcome averages to ∇p/p and -∇p/(1-p).
Hence

    E[(1/G) Σ A_i s_i | m] = √(m̂(1-m̂)) (1/p + 1/(1-p)) ∇p = √(m̂(1-m̂))/(p(1-p)) ∇p

    E[estimator] = c_G(p) ∇p,     c_G(p) = E_{m~Bin(G,p)} √(m̂(1-m̂)) / (p(1-p))

for every policy class. G → ∞ gives 1/√(p(1-p)), the gradient of 2 arcsin √p. A finite group is *bounded* as p
→ 0, where only m = 1 matters: c → √(G-1). The sample deviation (ddof 1) multiplies by √((G-1)/G).

**Mean only.** E[R_i - R̄ | y_i] = (1 - 1/G)(R_i - p), so the factor is (G-1)/G, for every reward and policy.

**One over the length.** The same step with a weight 1/L(y_i) inside gives ((G-1)/G) E[((R-p)/L) s], the
policy gradient of the surrogate reward (R(y) - p̄)/L(y) with p̄ frozen: among right responses short ones win,
among wrong ones long ones. There is a bias only where length and reward depend on each other given the state.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray

from analysis.theory._prediction import Prediction, register
from testbed.advantages import group_centred, group_standardised
from testbed.errors import ConfigError

__all__ = ["centred_factor", "length_surrogate", "standardised_factor", "standardised_factor_limit"]

FloatArray = NDArray[np.float64]


def standardised_factor(success: ArrayLike, group_size: int, ddof: int = 0) -> FloatArray:
    """c_G(p): what group standardisation multiplies ∇p by, any shape of p in (0, 1).

    Args:
        success: p, probability that one response succeeds.
        group_size: G ≥ 2.
        ddof: 0 for the population deviation, 1 for the sample deviation.

    >>> round(float(standardised_factor(0.5, 2)), 12)  # m = 1 half of the time: ½ · ½ / ¼
    1.0
    """
    p = np.asarray(success, dtype=np.float64)
    if group_size < 2 or ddof not in (0, 1) or not ((p > 0) & (p < 1)).all():
        raise ConfigError(
            f"success {p.tolist()}, group_size {group_size}, ddof {ddof}; expected probabilities strictly between 0 "
            "and 1, at least two responses, and ddof 0 or 1"
        )
    m = np.arange(group_size + 1)
    deviation = np.sqrt(m / group_size * (1 - m / group_size))
    mean = (scipy.stats.binom.pmf(m, group_size, p[..., None]) * deviation).sum(-1)
    return np.asarray(mean / (p * (1 - p)) * (np.sqrt((group_size - 1) / group_size) if ddof else 1.0))


def standardised_factor_limit(success: ArrayLike) -> FloatArray:
    """1/√(p(1-p)): c_G(p) as G → ∞.

    >>> float(standardised_factor_limit(0.5))
    2.0
    """
    p = np.asarray(success, dtype=np.float64)
    return np.asarray(1 / np.sqrt(p * (1 - p)))


def centred_factor(group_size: int) -> float:
    """(G-1)/G: what subtracting the group mean multiplies the policy gradient by, for every reward.

    >>> centred_factor(16)
    0.9375
    """
    if group_size < 2:
        raise ConfigError(f"group_size is {group_size}; expected at least two responses")
    return (group_size - 1) / group_size


def length_surrogate(probabilities: ArrayLike, rewards: ArrayLike, lengths: ArrayLike) -> FloatArray:
    """(R(y) - p̄)/L(y) of every response `(Y,)`: the reward whose gradient a per-response mean follows.

    >>> length_surrogate([0.5, 0.5], [1.0, 0.0], [1, 4]).tolist()
    [0.5, -0.125]
    """
    p, r = np.asarray(probabilities, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    return np.asarray((r - (p * r).sum()) / np.asarray(lengths, dtype=np.float64))


# -- predictions ---------------------------------------------------------------------------------------------


def _enumerate_groups(log_probs: torch.Tensor, weights: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """E[(1/G) Σ w_i ∇log π(y_i)] over all groups: the sum over all Y^G of them, differentiated once.

    Args:
        log_probs: `(Y,)`, differentiable in the logits.
        weights: `(groups, G)`, constant update weight of each response.
        group: int64 `(groups, G)`, the responses of each group.
    """
    probability = log_probs.detach()[group].sum(-1).exp()
    return (probability[:, None] * weights * log_probs[group]).sum() / group.shape[1]


def _groups(responses: int, size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(responses), repeat=size)))


_BANDIT = np.array([[0.3, -0.7, 1.1], [-2.0, 0.5, 1.5], [0.0, 0.0, 0.0]])
_REWARDS = np.array([1.0, 0.0, 0.0])
_SIZES = (2, 3, 4, 6)


def _bandit_gradients(estimator: str, ddof: int = 0) -> FloatArray:
    """Expected estimator over all groups of three arms, `(policies, sizes, 3)`."""
    found = []
    for start, size in itertools.product(_BANDIT, _SIZES):
        logits = torch.tensor(start, requires_grad=True)
        group = _groups(3, size)
        rewards = torch.tensor(_REWARDS)[group]
        weights = group_standardised(rewards, ddof=ddof) if estimator == "standardised" else group_centred(rewards)
        expected = _enumerate_groups(torch.log_softmax(logits, 0), weights, group)
        found.append(torch.autograd.grad(expected, logits)[0].numpy())
    return np.reshape(found, (len(_BANDIT), len(_SIZES), 3))


def _scaled_success_gradients(estimator: str, ddof: int = 0) -> FloatArray:
    policy = np.exp(_BANDIT) / np.exp(_BANDIT).sum(1, keepdims=True)
    success = policy @ _REWARDS
    gradient = policy * (_REWARDS - success[:, None])
    factors = [
        standardised_factor(success, size, ddof) if estimator == "standardised" else np.full(3, centred_factor(size))
        for size in _SIZES
    ]
    return np.stack(factors, axis=1)[..., None] * gradient[:, None, :]


# Two letters and an end mark, at most three tokens: 1 + 2 + 12 responses over 7 states.
_TREE = [
    word
    for length in (1, 2, 3)
    for word in itertools.product(range(3), repeat=length)
    if 2 not in word[:-1] and (word[-1] == 2 or length == 3)
]
_STATES = {word[:depth] for word in _TREE for depth in range(len(word))}
_STATE_INDEX = {state: index for index, state in enumerate(sorted(_STATES))}
_LENGTHS = np.array([len(word) for word in _TREE], dtype=np.float64)
_RIGHT = np.random.default_rng(3).integers(0, 2, size=len(_TREE)).astype(np.float64)


def _tree_log_probs() -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.tensor(np.random.default_rng(4).normal(size=(len(_STATES), 3)), requires_grad=True)
    log_policy = torch.log_softmax(table, -1)
    paths = [[(_STATE_INDEX[word[:t]], word[t]) for t in range(len(word))] for word in _TREE]
    return table, torch.stack([sum((log_policy[s, v] for s, v in path), torch.zeros(())) for path in paths])


def _surrogate_gradient() -> FloatArray:
    table, log_probs = _tree_log_probs()
    surrogate = length_surrogate(log_probs.detach().exp().numpy(), _RIGHT, _LENGTHS)
    (gradient,) = torch.autograd.grad((log_probs.exp() * torch.tensor(surrogate)).sum(), table)
    return centred_factor(3) * gradient.numpy()


def _enumerated_sequence_mean() -> FloatArray:
    table, log_probs = _tree_log_probs()
    group = _groups(len(_TREE), 3)
    weights = group_centred(torch.tensor(_RIGHT)[group]) / torch.tensor(_LENGTHS)[group]
    return torch.autograd.grad(_enumerate_groups(log_probs, weights, group), table)[0].numpy()


register(
    Prediction(
        id="T10",
        name="standardised-factor",
        statement="Group standardisation of a binary reward multiplies ∇p by E √(m̂(1-m̂))/(p(1-p)).",
        route="sum over all 3^G groups of a three-armed bandit, G up to 6, with the shipped estimator",
        unit="gradient of a logit",
        tolerance=1e-13,
        predict=lambda: [_scaled_success_gradients("standardised", ddof) for ddof in (0, 1)],
        measure=lambda: [_bandit_gradients("standardised", ddof) for ddof in (0, 1)],
    )
)
register(
    Prediction(
        id="T10",
        name="centred-factor",
        statement="Subtracting the group mean multiplies the policy gradient by (G-1)/G.",
        route="sum over all 3^G groups of a three-armed bandit, G up to 6, with the shipped estimator",
        unit="gradient of a logit",
        tolerance=1e-13,
        predict=lambda: _scaled_success_gradients("centred"),
        measure=lambda: _bandit_gradients("centred"),
    )
)
register(
    Prediction(
        id="T10",
        name="length-surrogate",
        statement="A per-response mean follows the gradient of (R - p̄)/L, times (G-1)/G.",
        route="sum over all 15³ groups of responses of unequal length",
        unit="gradient of a logit",
        tolerance=1e-13,
        predict=_surrogate_gradient,
        measure=_enumerated_sequence_mean,
    )
)
