"""The reward of the greedy response as the baseline."""

from __future__ import annotations

from torch import Tensor

from testbed.advantages._base import advantages, readable
from testbed.errors import BatchError

__all__ = ["remax"]


@advantages.register("remax")
def remax(rewards: Tensor, greedy_rewards: Tensor) -> Tensor:
    """A_i = R_i - R of the response decoded greedily for the same prompt.

    Args:
        rewards: `(..., P, G)`.
        greedy_rewards: `(..., P)`; one more rollout per prompt.

    Reference: Li et al., ReMax, arXiv 2310.10505, as verl 0.9.1 has it.
    Departures: none.

    Raises:
        BatchError: another shape, or rewards that are not finite floating-point numbers.

    Example:
        >>> import torch
        >>> remax(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0])).tolist()
        [[0.0, -1.0]]
    """
    rewards = readable(rewards, "remax")
    greedy = readable(greedy_rewards, "remax")
    if greedy.shape != rewards.shape[:-1]:
        raise BatchError(
            f"remax got greedy_rewards of shape {tuple(greedy.shape)}; expected {tuple(rewards.shape[:-1])}, one per "
            "prompt: the reward of its greedy response"
        )
    return rewards - greedy.unsqueeze(-1)
