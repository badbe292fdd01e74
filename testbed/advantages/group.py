"""The estimators of the first papers: rewards compared within the group of their prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.advantages._base import advantages, check_ddof, check_not_negative, readable, zero_variance

__all__ = ["group_centred", "group_standardised", "leave_one_out", "raw_rewards"]


@advantages.register("group_standardised")
def group_standardised(rewards: Tensor, *, ddof: int = 0, epsilon: float = 0.0) -> Tensor:
    """A_i = (R_i - mean R)/(std R + ε), and 0 throughout a group whose rewards are all equal but for rounding.

    Args:
        rewards: `(..., P, G)`.
        ddof: 0 divides the squared deviations by G, 1 by G-1. The papers do not say which; verl, TRL, ms-swift and
            OpenRLHF use 1. The two differ by the factor √((G-1)/G).
        epsilon: ε, in units of reward. The papers have none; verl adds 1e-6, TRL 1e-4, OpenRLHF 1e-9.

    Reference: Shao et al., DeepSeekMath, arXiv 2402.03300, section 4.1.2.
    Departures: a group of equal rewards is recognised as such, see `zero_variance`, so that neither a rounded sum nor
        a rounded mean can become an advantage.

    Raises:
        BatchError: groups of one response, whose standard deviation carries no information, or rewards that are not
            finite floating-point numbers.
        ConfigError: `ddof` is neither 0 nor 1, or `epsilon` is negative.

    Example:
        >>> group_standardised(torch.tensor([1.0, 0.0])).tolist()
        [1.0, -1.0]
        >>> group_standardised(torch.tensor([0.1, 0.1, 0.1])).tolist()
        [0.0, 0.0, 0.0]
    """
    check_ddof("group_standardised", ddof)
    check_not_negative("group_standardised", "epsilon", epsilon)
    rewards = readable(rewards, "group_standardised", least=2)
    centred = rewards - rewards.mean(-1, keepdim=True)
    deviation = (centred.square().sum(-1, keepdim=True) / (rewards.shape[-1] - ddof)).sqrt()
    if epsilon:
        deviation += epsilon
    # Nothing divided by infinity is 0, whatever the rounding of the mean.
    return centred / deviation.masked_fill_(zero_variance(rewards).unsqueeze(-1), torch.inf)


@advantages.register("group_centred")
def group_centred(rewards: Tensor) -> Tensor:
    """A_i = R_i - mean R over the group, in units of reward.

    Reference: Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783.

    Raises:
        BatchError: rewards that are not finite floating-point numbers.

    Example:
        >>> group_centred(torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
        [0.75, -0.25, -0.25, -0.25]
    """
    rewards = readable(rewards, "group_centred")
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred.masked_fill(zero_variance(rewards).unsqueeze(-1), 0.0)


@advantages.register("leave_one_out")
def leave_one_out(rewards: Tensor) -> Tensor:
    """A_i = R_i - mean of the other G-1 rewards = (R_i - mean R)·G/(G-1), in units of reward.

    Reference: Ahmadian et al., Back to basics, arXiv 2402.14740 (RLOO).

    Raises:
        BatchError: groups of one response, where there is no other, or rewards that are not finite floating-point
            numbers.

    Example:
        >>> leave_one_out(torch.tensor([1.0, 0.0])).tolist()
        [1.0, -1.0]
    """
    rewards = readable(rewards, "leave_one_out", least=2)
    group = rewards.shape[-1]
    centred: Tensor = group_centred(rewards)
    return centred * (group / (group - 1))


@advantages.register("none")
def raw_rewards(rewards: Tensor) -> Tensor:
    """A_i = R_i: no baseline.

    Raises:
        BatchError: rewards that are not finite floating-point numbers.
    """
    return readable(rewards, "none")
