"""The baseline that is optimal where a response's gradient grows with its length."""

from __future__ import annotations

from torch import Tensor

from testbed.advantages._base import advantages, check_lengths, readable, zero_variance

__all__ = ["opo"]


@advantages.register("opo")
def opo(rewards: Tensor, lengths: Tensor) -> Tensor:
    """A_i = R_i - Σ_j n_j R_j / Σ_j n_j: the mean weighted by length.

    Args:
        rewards: `(..., P, G)`.
        lengths: n, tokens of each response, `(..., P, G)`.

    Reference: OPO, arXiv 2505.23585, as verl 0.9.1 has it.
    Departures: a group of equal rewards gives exactly 0.

    Raises:
        BatchError: groups of one response, lengths of another shape or without a token in a group, or rewards that
            are not finite floating-point numbers.

    Example:
        >>> import torch
        >>> opo(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[2, 4, 4, 6]])).tolist()
        [[0.875, -0.125, -0.125, -0.125]]
    """
    rewards = readable(rewards, "opo", least=2)
    weights = check_lengths("opo", lengths, rewards)
    baseline = (weights * rewards).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return (rewards - baseline).masked_fill(zero_variance(rewards).unsqueeze(-1), 0)
