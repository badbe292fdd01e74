"""Group-centred rewards in units of the whole batch's standard deviation."""

from __future__ import annotations

from torch import Tensor

from testbed.advantages._base import advantages, check_ddof, check_not_negative, readable, zero_variance

__all__ = ["batch_standardised"]


@advantages.register("batch_standardised")
def batch_standardised(rewards: Tensor, *, ddof: int = 1, epsilon: float = 1e-4) -> Tensor:
    """A_i = (R_i - mean of the group)/(std of all rewards of the batch + ε).

    A group whose own deviation is small, a very easy or a very hard prompt, is not inflated by it.

    Args:
        rewards: `(..., P, G)`.
        ddof: 0 divides the squared deviations by P·G, 1 by P·G - 1.
        epsilon: ε, in units of reward.

    Reference: arXiv 2508.08221 as TRL cites it for `scale_rewards="batch"`; ms-swift alike.
    Departures: groups of equal rewards give exactly 0; a batch of equal rewards is 0 throughout.

    Raises:
        BatchError: groups of one response, or rewards that are not finite floating-point numbers.
        ConfigError: `ddof` is neither 0 nor 1, or `epsilon` is negative.

    Example:
        >>> import torch
        >>> rewards = torch.tensor([[1.0, 0.0], [0.5, 0.5]])  # deviations ±½ from ½, in two of four: √(1/8)
        >>> batch_standardised(rewards, ddof=0, epsilon=0.0).square().round(decimals=4).tolist()
        [[2.0, 2.0], [0.0, 0.0]]
    """
    check_ddof("batch_standardised", ddof)
    check_not_negative("batch_standardised", "epsilon", epsilon)
    rewards = readable(rewards, "batch_standardised", least=2)
    centred = (rewards - rewards.mean(-1, keepdim=True)).masked_fill(zero_variance(rewards).unsqueeze(-1), 0)
    everything = rewards.flatten(-2)
    constant = zero_variance(everything)[..., None, None]
    # Not `std`, whose rounding depends on what else stands in the tensor.
    squares = (everything - everything.mean(-1, keepdim=True)).square().sum(-1)
    deviation = (squares / (everything.shape[-1] - ddof)).sqrt()[..., None, None] + epsilon
    return (centred / deviation.masked_fill(constant, 1)).masked_fill(constant, 0)
