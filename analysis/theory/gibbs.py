"""Regularised optima: the Gibbs policy, and the reward-KL frontier of every task with a right-or-wrong reward.

Maximising Σ π R - β KL(π‖ref) over distributions gives π* = ref·exp(R/β)/Z with value β log Z, because the
objective equals β log Z - β KL(π‖π*). For responses y this is one distribution over sequences; dynamic
programming finds it token by token. A uniform reference leaves the entropy-regularised optimum.

**Binary reward.** If the reference succeeds with probability p₀, Z = p₀ e^{1/β} + 1 - p₀, so

    p* = p₀ e^{1/β}/Z,     KL(π*‖ref) = p* log(p*/p₀) + (1-p*) log((1-p*)/(1-p₀)) = kl(p*‖p₀)

where the second holds since π*/ref is constant within the right and within the wrong responses. By the
data-processing inequality any policy with success p has KL(π‖ref) ≥ kl(p‖p₀): the frontier of every
verifiable-reward task is one explicit curve, and the distance above it is drift that bought nothing.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp, rel_entr

from analysis.theory._prediction import Prediction, register
from envs import exact, make_spec
from envs.automaton import TERMINAL
from testbed.errors import ConfigError

if TYPE_CHECKING:
    from envs.automaton import Automaton

__all__ = [
    "bernoulli_divergence",
    "binary_success",
    "gibbs_log_policy",
    "gibbs_value",
    "response_log_probs",
    "wasted_divergence",
]

FloatArray = NDArray[np.float64]


def gibbs_log_policy(log_reference: ArrayLike, rewards: ArrayLike, temperature: float) -> FloatArray:
    """Gibbs policy, log π* = log ref + R/β - log Z over the last axis, `(..., Y)`.

    >>> np.exp(gibbs_log_policy(np.log([0.5, 0.5]), [np.log(3.0), 0.0], 1.0)).round(12).tolist()
    [0.75, 0.25]
    """
    _check_temperature(temperature)
    return np.asarray(log_softmax(np.asarray(log_reference) + np.asarray(rewards) / temperature, axis=-1))


def gibbs_value(log_reference: ArrayLike, rewards: ArrayLike, temperature: float) -> FloatArray:
    """β log Z = max over π of Σ π R - β KL(π‖ref), `(..., Y)` to `(...,)`, in reward.

    >>> float(np.exp(gibbs_value(np.log([0.5, 0.5]), [np.log(3.0), 0.0], 1.0)).round(12))  # ½·3 + ½·1
    2.0
    """
    _check_temperature(temperature)
    return np.asarray(temperature * logsumexp(np.asarray(log_reference) + np.asarray(rewards) / temperature, axis=-1))


def binary_success(reference_success: ArrayLike, temperature: float) -> FloatArray:
    """p* = p₀e^{1/β}/(p₀e^{1/β} + 1 - p₀): success of the Gibbs policy of a 0-or-1 reward, any shape.

    >>> round(float(binary_success(0.5, 1 / np.log(3.0))), 12)
    0.75
    """
    _check_temperature(temperature)
    p = np.asarray(reference_success, dtype=np.float64)
    # exp(-1/β) cannot overflow.
    return np.asarray(p / (p + (1 - p) * np.exp(-1 / temperature)))


def bernoulli_divergence(success: ArrayLike, reference_success: ArrayLike) -> FloatArray:
    """kl(p‖p₀) in nats, any shape: the least KL to the reference at which a success p can be had.

    >>> float(bernoulli_divergence(0.3, 0.3))
    0.0
    """
    p, p0 = np.asarray(success, dtype=np.float64), np.asarray(reference_success, dtype=np.float64)
    return np.asarray(rel_entr(p, p0) + rel_entr(1 - p, 1 - p0))


def wasted_divergence(divergence: ArrayLike, success: ArrayLike, reference_success: ArrayLike) -> FloatArray:
    """KL(π‖ref) - kl(p‖p₀) ≥ 0 in nats: drift from the reference that bought no success.

    >>> round(float(wasted_divergence(1.0, 0.5, 0.5)), 12)
    1.0
    """
    return np.asarray(np.asarray(divergence) - bernoulli_divergence(success, reference_success))


def response_log_probs(spec: Automaton, log_policy: torch.Tensor, prompt: int) -> tuple[FloatArray, FloatArray]:
    """Log-probability and reward of every response to one prompt by walking all V^T paths, `(Y,)` each.

    Raises:
        ConfigError: more than a million paths.

    >>> spec = make_spec("NeedleBandit-v1", arms=4)
    >>> len(response_log_probs(spec, spec.initial_logits.log_softmax(-1), 0)[0])
    4
    """
    if spec.vocabulary**spec.horizon > 1e6:
        raise ConfigError(
            f"{spec.name}: {spec.vocabulary}^{spec.horizon} responses are too many to list; use envs.exact"
        )
    log_probs, rewards = [], []
    table, next_state, reward = log_policy.numpy(), spec.transitions.numpy(), spec.rewards.numpy()
    frontier = [(int(spec.initial_states[prompt]), 0.0)]
    while frontier:
        following = []
        for (state, so_far), token in itertools.product(frontier, range(spec.vocabulary)):
            log_prob = so_far + float(table[state, token])
            if next_state[state, token] == TERMINAL:
                log_probs.append(log_prob)
                rewards.append(float(reward[state, token]))
            else:
                following.append((int(next_state[state, token]), log_prob))
        frontier = following
    return np.array(log_probs), np.array(rewards)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}; expected β > 0, in units of reward per nat")


# -- predictions ---------------------------------------------------------------------------------------------

_TEMPERATURES = (0.1, 0.5, 2.0)


def _task() -> tuple[Automaton, torch.Tensor]:
    spec = make_spec("ModularSum-v1", length=5, vocabulary=4, modulus=2, prompts=2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(spec.states, spec.vocabulary, generator=generator, dtype=torch.float64)
    return spec, noise.log_softmax(-1)


def _enumerated() -> list[FloatArray]:
    """Log π* of all 2 x 1024 responses at each temperature, from the list of responses."""
    spec, reference = _task()
    listed = [response_log_probs(spec, reference, prompt) for prompt in range(spec.prompts)]
    return [
        np.stack([gibbs_log_policy(log_probs, rewards, beta) for log_probs, rewards in listed])
        for beta in _TEMPERATURES
    ]


def _by_dynamic_programming() -> list[FloatArray]:
    spec, reference = _task()
    found = []
    for beta in _TEMPERATURES:
        best = exact.optimum(spec, temperature=beta, reference=reference).log_policy
        found.append(np.stack([response_log_probs(spec, best, prompt)[0] for prompt in range(spec.prompts)]))
    return found


def _binary_closed_form() -> FloatArray:
    spec, reference = _task()
    start = exact.evaluate(spec, reference).success.numpy()
    success = np.stack([binary_success(start, beta) for beta in _TEMPERATURES])
    return np.stack([success, bernoulli_divergence(success, start)])


def _binary_by_dynamic_programming() -> FloatArray:
    spec, reference = _task()
    policies = [exact.optimum(spec, temperature=beta, reference=reference).log_policy for beta in _TEMPERATURES]
    return np.stack(
        [
            [exact.evaluate(spec, policy).success.numpy() for policy in policies],
            [exact.kl_per_prompt(spec, policy, reference).numpy() for policy in policies],
        ]
    )


def _stationarity() -> list[float]:
    """Largest gradient of the regularised objective at π*, and its value there minus β log Z."""
    generator = np.random.default_rng(0)
    log_reference, rewards, beta = log_softmax(generator.normal(size=20)), generator.normal(size=20), 0.7
    logits = torch.tensor(gibbs_log_policy(log_reference, rewards, beta), requires_grad=True)
    log_policy = torch.log_softmax(logits, 0)
    gain = torch.tensor(rewards) - beta * (log_policy - torch.tensor(log_reference))
    value = (log_policy.exp() * gain).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    return [float(gradient.abs().max()), value.item() - float(gibbs_value(log_reference, rewards, beta))]


register(
    Prediction(
        id="T6",
        name="gibbs-sequences",
        statement="The KL-regularised optimum over sequences is ref·exp(R/β)/Z.",
        route="dynamic programming over the automaton, against all 2 x 4^5 listed responses, three temperatures",
        unit="nats of log-probability",
        tolerance=1e-12,
        predict=_enumerated,
        measure=_by_dynamic_programming,
    )
)
register(
    Prediction(
        id="T6",
        name="gibbs-binary",
        statement="For a 0-or-1 reward its success is p₀e^{1/β}/Z and its KL to the reference kl(p*‖p₀).",
        route="success and KL of the policy that dynamic programming finds, three temperatures, two prompts",
        unit="probability, nats",
        tolerance=1e-12,
        predict=_binary_closed_form,
        measure=_binary_by_dynamic_programming,
    )
)
register(
    Prediction(
        id="T6",
        name="gibbs-stationary",
        statement="At the Gibbs policy of a bandit the regularised objective is stationary, with value β log Z.",
        route="autograd of the objective at the closed-form policy, K = 20",
        unit="reward",
        tolerance=1e-14,
        predict=lambda: np.zeros(2),
        measure=_stationarity,
    )
)
