"""The policies a run may start from, shared by every environment that leaves the choice open."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.catalogue import Environment, choice, real

__all__ = ["STARTING_POLICIES", "StartingPolicy"]

STARTING_POLICIES = ("uniform", "normal", "zipf", "peaked")


@dataclass(frozen=True, kw_only=True)
class StartingPolicy(Environment, ABC):
    """An environment whose initial logits are drawn, independently for every state and seed."""

    initial: str = choice("normal", STARTING_POLICIES)
    """`uniform`; `normal`: logits N(0, scale²); `zipf`: p ∝ rank^-exponent in random order; `peaked`: one random
    token has probability `peak`, the others share the rest as the softmax of N(0, 1)."""
    scale: float = real(1.0, low=0.0)
    """Standard deviation of `normal` logits."""
    exponent: float = real(1.0, low=0.0)
    """Decay of `zipf`; 0 is uniform."""
    peak: float = real(0.9, low=0.0, high=1.0, exclusive=True)
    """Probability of the most likely token of `peaked`."""

    def draw_initial_logits(self, generator: np.random.Generator, states: int, vocabulary: int) -> Tensor:
        """Logits of the starting policy, float64 `(states, vocabulary)`."""
        shape = (states, vocabulary)
        if self.initial == "uniform":
            logits = np.zeros(shape)
        elif self.initial == "normal":
            logits = self.scale * generator.standard_normal(shape)
        elif self.initial == "zipf":
            ranks = np.broadcast_to(np.arange(1, vocabulary + 1), shape)
            logits = -self.exponent * np.log(generator.permuted(ranks, axis=1))
        else:
            noise = generator.standard_normal(shape)
            top = generator.integers(vocabulary, size=states)
            rows = np.arange(states)
            noise[rows, top] = -np.inf
            logits = np.log1p(-self.peak) + noise - np.logaddexp.reduce(noise, axis=1, keepdims=True)
            logits[rows, top] = np.log(self.peak)
        return torch.from_numpy(logits)
