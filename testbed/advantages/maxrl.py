"""Advantages whose expected gradient approaches that of maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.advantages._base import advantages, check_not_negative, readable, zero_variance

__all__ = ["maxrl"]


@advantages.register("maxrl")
def maxrl(rewards: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """A_i = (R_i - mean R)/(mean R + ε), and 0 in a group whose mean is not positive.

    On rewards of 0 and 1 a right response gets (1 - p̂)/p̂ and a wrong one -1. In expectation a prompt of success rate p
    weighs Σ_{k=1}^{G-1} (1-p)^k/k times its policy gradient divided by that of log p at order 1: the expansion of
    the log-likelihood, cut at order G - 1.

    Args:
        rewards: `(..., P, G)`.
        epsilon: ε, in units of reward; the authors and SkyRL add 1e-6, prime-rl nothing.

    Reference: MaxRL, arXiv 2602.02710, as prime-rl and the authors' code (tajwarfahim/maxrl c0698eb) have it.
    Departures: none.

    Raises:
        BatchError: groups of one response, or rewards that are not finite floating-point numbers.
        ConfigError: `epsilon` is negative.

    Example:
        >>> import torch
        >>> maxrl(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
        [[3.0, -1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    check_not_negative("maxrl", "epsilon", epsilon)
    rewards = readable(rewards, "maxrl", least=2)
    mean = rewards.mean(-1, keepdim=True)
    none = (mean <= 0) | zero_variance(rewards).unsqueeze(-1)
    return torch.where(none, 0.0, (rewards - mean) / (mean + epsilon).masked_fill(none, 1))
