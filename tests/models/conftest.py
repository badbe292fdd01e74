"""Policies of every kind on a small automaton, in float64, with parameters away from their special start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.policy import Policy, Samples, make_policy

STATES, VOCABULARY, HORIZON = 6, 3, 4


def step(states: Tensor, tokens: Tensor) -> Tensor:
    """Prompts 0 and 1; token 2 ends the response early, and nothing goes beyond the last state."""
    following = states + 1 + tokens % 2
    return torch.where((tokens == 2) | (following >= STATES), -1, following)


@pytest.fixture
def make() -> Callable[..., Policy]:
    """A policy whose parameters are random and differ between replicas; replica i depends only on i."""

    def build(name: str, replicas: int = 2) -> Policy:
        policy = make_policy(name, torch.zeros(replicas, STATES, VOCABULARY, dtype=torch.float64))
        for number, parameter in enumerate(policy.parameters):
            for replica in range(replicas):
                generator = torch.Generator().manual_seed(100 * replica + number)
                noise = torch.randn(parameter.shape[1:], generator=generator, dtype=torch.float64)
                parameter[replica].add_(noise, alpha=0.3)
        return policy

    return build


@pytest.fixture
def draw() -> Callable[..., Samples]:
    """Responses to both prompts; replica i's random numbers depend only on i."""

    def sample(policy: Policy, sequences: int = 6, horizon: int = HORIZON, seed: int = 0, **options: object) -> Samples:
        rows = [
            torch.rand(
                sequences, HORIZON, generator=torch.Generator().manual_seed(1000 * seed + replica), dtype=torch.float64
            )
            for replica in range(policy.shape[0])
        ]
        uniforms = torch.stack(rows)[..., :horizon]
        options = {"entropies": True} | options
        return policy.sample(torch.arange(sequences) % 2, step, uniforms, **options)  # type: ignore[arg-type]

    return sample
