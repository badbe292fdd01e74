"""One mean and one standard deviation for all tokens of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.advantages._base import (
    advantages,
    check_ddof,
    check_lengths,
    check_not_negative,
    readable,
    zero_variance,
)

__all__ = ["reinforce_plus_plus"]


@advantages.register("reinforce_plus_plus")
def reinforce_plus_plus(
    rewards: Tensor, lengths: Tensor, *, baseline: bool = False, ddof: int = 1, epsilon: float = 1e-8
) -> Tensor:
    """A_i = (R_i - mean)/√(var + ε), mean and variance over the response tokens of the batch.

    A response counts once per token. With `baseline` the mean of its group is taken from every reward first; on one
    prompt the two are the same.

    Args:
        rewards: `(..., P, G)`.
        lengths: n, tokens of each response, `(..., P, G)`.
        baseline: whether rewards are centred in their group first.
        ddof: 0 divides the squared deviations by the number of tokens, 1 by one less.
        epsilon: ε, in squared units of reward.

    Reference: Hu, REINFORCE++, arXiv 2501.03262, without a discount, as verl 0.9.1 has it. OpenRLHF divides by the
        number of tokens.
    Departures: a batch of equal rewards gives exactly 0.

    Raises:
        BatchError: lengths of another shape or without a token in a group, or rewards that are not finite
            floating-point numbers.
        ConfigError: `ddof` is neither 0 nor 1, or `epsilon` is negative.

    Example:
        >>> import torch
        >>> rewards, lengths = torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 4]])  # mean 1/5, variance 4/25
        >>> reinforce_plus_plus(rewards.double(), lengths, ddof=0, epsilon=0.0).round(decimals=9).tolist()
        [[2.0, -0.5]]
    """
    check_ddof("reinforce_plus_plus", ddof)
    check_not_negative("reinforce_plus_plus", "epsilon", epsilon)
    rewards = readable(rewards, "reinforce_plus_plus", least=2 if baseline else 1)
    weights = check_lengths("reinforce_plus_plus", lengths, rewards)
    if baseline:
        equal = zero_variance(rewards).unsqueeze(-1)
        rewards = (rewards - rewards.mean(-1, keepdim=True)).masked_fill(equal, 0)
    constant = zero_variance(rewards.flatten(-2))[..., None, None]
    tokens = weights.sum((-2, -1), keepdim=True)
    mean = (weights * rewards).sum((-2, -1), keepdim=True) / tokens
    variance = (weights * (rewards - mean).square()).sum((-2, -1), keepdim=True) / (tokens - ddof).clamp(min=1)
    return torch.where(constant, 0.0, (rewards - mean) / (variance + epsilon).sqrt().masked_fill(constant, 1))
