"""Pre-training: a policy that sees prefixes is brought to a given policy before reinforcement learning starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.policy import Episodes, Samples
from models.tabular import TabularPolicy
from testbed.errors import ConfigError

__all__ = ["Trainee", "pretrain_on_samples", "pretrain_on_table"]

# Responses per update of `pretrain_on_table`; every prompt is among them at least once.
_SEQUENCES = 64


class Trainee(Protocol):
    """What pre-training needs of a policy."""

    shape: torch.Size
    parameters: list[Tensor]

    def distributions(self, samples: Samples) -> tuple[list[Tensor], Tensor]:
        """The parameters as leaves of a graph, and log-probabilities `(R, B, T, V)` at every sampled position."""


def pretrain_on_table(
    policy: Trainee,
    logits: Tensor,
    episodes: Episodes,
    *,
    steps: int = 300,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> Tensor:
    """Minimise KL(p‖π) on responses of the target p, with p(·|s) the softmax of a table over automaton states.

    Every update draws fresh responses from the target and compares whole distributions at their tokens, not only the
    tokens drawn. All replicas see the same random numbers, so a replica does not depend on which others there are.

    Args:
        policy: what is trained, in place.
        logits: float `(R, S, V)`, the target.
        episodes: the environment.
        steps: updates of Adam; 0 only measures.
        learning_rate: its step size at the start, decaying to 0 along a half cosine.
        seed: of the responses.

    Returns:
        float `(R,)`, KL(p‖π) in nats per token on fresh responses: how far from the target the policy ended.

    Raises:
        ConfigError: the target does not have the policy's shape, or a setting is out of its range.
    """
    if logits.shape != policy.shape:
        raise ConfigError(
            f"pretrain_on_table: logits has shape {tuple(logits.shape)}; expected {tuple(policy.shape)}, replicas, "
            "states and vocabulary of the policy"
        )
    target = TabularPolicy(logits)
    log_target = target.log_policy()
    prompts = episodes.initial_states
    initial_states = prompts.repeat_interleave(-(-_SEQUENCES // prompts.numel()))
    generator = torch.Generator().manual_seed(seed)
    shape = (initial_states.numel(), episodes.horizon)

    def divergence() -> tuple[list[Tensor], Tensor]:
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(logits.device)
        uniforms = uniforms.expand(policy.shape[0], *shape)
        samples = target.sample(initial_states, episodes.step, uniforms, entropies=False)
        leaves, rows = policy.distributions(samples)
        index = samples.states.flatten(1).unsqueeze(-1).expand(-1, -1, rows.shape[-1])
        wanted = log_target.gather(1, index).view_as(rows)
        return leaves, _token_mean((wanted.exp() * (wanted - rows)).sum(-1), samples.mask)

    return _minimise(policy, divergence, steps, learning_rate)


def pretrain_on_samples(policy: Trainee, samples: Samples, *, steps: int = 300, learning_rate: float = 1e-2) -> Tensor:
    """Maximise the mean log-probability of given responses, as in supervised fine-tuning.

    Args:
        policy: what is trained, in place.
        samples: the responses, the same replicas as the policy.
        steps: updates of Adam, each on all responses; 0 only measures.
        learning_rate: its step size at the start, decaying to 0 along a half cosine.

    Returns:
        float `(R,)`, the mean of -log π per token, nats, after the last update.

    Raises:
        ConfigError: the samples have other replicas than the policy, or a setting is out of its range.
    """
    if samples.tokens.shape[0] != policy.shape[0]:
        raise ConfigError(
            f"pretrain_on_samples: samples.tokens has shape {tuple(samples.tokens.shape)}; expected "
            f"{policy.shape[0]} replicas first, as the policy has"
        )

    def surprise() -> tuple[list[Tensor], Tensor]:
        leaves, rows = policy.distributions(samples)
        return leaves, _token_mean(-rows.gather(-1, samples.tokens.unsqueeze(-1)).squeeze(-1), samples.mask)

    return _minimise(policy, surprise, steps, learning_rate)


def _minimise(
    policy: Trainee, loss: Callable[[], tuple[list[Tensor], Tensor]], steps: int, learning_rate: float
) -> Tensor:
    """Take `steps` updates of Adam on the sum of the losses `(R,)`; returns the loss afterwards.

    Adam is elementwise, so replicas do not touch each other.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"pre-training: steps is {steps!r}; expected a whole number of at least 0")
    if not learning_rate > 0:
        raise ConfigError(f"pre-training: learning_rate is {learning_rate!r}; expected a positive number")
    # Aliases, so that the policy's own tensors do not keep a gradient.
    parameters = [parameter.detach() for parameter in policy.parameters]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        with torch.enable_grad():
            leaves, value = loss()
            gradients = torch.autograd.grad(value.sum(), leaves)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
    with torch.no_grad():
        return loss()[1]


def _token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the response tokens of a replica, `(R,)`."""
    return (values * mask).sum((-2, -1)) / mask.sum((-2, -1))
