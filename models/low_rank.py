"""Logits of low rank: the smallest policy in which learning in one state changes the others."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.policy import policies
from models.tabular import StatePolicy
from testbed.errors import ConfigError

__all__ = ["LowRankPolicy"]


@policies.register("low_rank")
class LowRankPolicy(StatePolicy):
    """z_s = c_s + U_s·W with features U `(R, S, k)` of every state and one matrix W `(R, k, V)` for all of them.

    c is fixed at z⁰ - U⁰·W⁰, so the initial policy is the one asked for up to rounding, at any rank. (The nearest
    matrix of rank k would not be: of a uniform policy it is 0, where U and W get no gradient at all.)

    One gradient step of size η on z(s, a) moves z(s', a') by η·(1[s=s']·W_a·W_a' + 1[a=a']·U_s·U_s'): the second term
    is the interference. Entries of U⁰ and W⁰ have variance 1/(2k), so the step on z(s, a) itself is η on average, as
    in a table, and a learning rate means the same in both.

    Args:
        logits: float `(R, S, V)`, z⁰.
        rank: k, at least 1.
        seed: of U⁰ and W⁰, which are the same in every replica.

    Raises:
        ConfigError: the rank is not a positive whole number.

    Example:
        >>> policy = LowRankPolicy(torch.zeros(1, 3, 2), rank=1)
        >>> [tuple(parameter.shape) for parameter in policy.parameters]
        [(1, 3, 1), (1, 1, 2)]
        >>> policy.log_policy().exp()[0, 0].tolist()
        [0.5, 0.5]
    """

    def __init__(self, logits: Tensor, rank: int = 4, seed: int = 0) -> None:
        super().__init__()
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ConfigError(f"model low_rank: rank is {rank!r}; expected a whole number of at least 1")
        self.shape = logits.shape
        replicas, states, vocabulary = logits.shape
        generator = torch.Generator().manual_seed(seed)
        scale = 1 / math.sqrt(2 * rank)
        drawn = (
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((states, rank), (rank, vocabulary))
        )
        self.features, self.weights = ((entries * scale).to(logits).repeat(replicas, 1, 1) for entries in drawn)
        self.offset = logits.detach() - self.features @ self.weights
        self.parameters = [self.features, self.weights]

    def table(self) -> Tensor:
        """The offset and what was learned, c + U·W."""
        return torch.baddbmm(self.offset, self.features, self.weights)

    def chain(self, table_gradient: Tensor) -> Sequence[Tensor]:
        """DU = dz·Wᵀ and dW = Uᵀ·dz."""
        return [table_gradient @ self.weights.mT, self.features.mT @ table_gradient]

    def snapshot(self) -> LowRankPolicy:
        """A copy with features and weights of its own."""
        other = copy.copy(self)
        other.features, other.weights = self.features.clone(), self.weights.clone()
        other.parameters = [other.features, other.weights]
        return other
