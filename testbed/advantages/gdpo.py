"""Several rewards, each standardised in its group before they are added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from testbed.advantages._base import check_ddof, check_not_negative, readable
from testbed.advantages.group import group_standardised
from testbed.errors import BatchError

__all__ = ["gdpo"]


def gdpo(
    rewards: Sequence[Tensor], weights: Sequence[float] | None = None, *, ddof: int = 1, epsilon: float = 1e-4
) -> Tensor:
    """A = standardised over the batch of Σ_k w_k·(R_k - mean of the group)/(std of the group + ε).

    Standardising a sum of rewards instead maps different combinations to equal advantages, and lets the reward of the
    largest spread decide.

    Args:
        rewards: one tensor `(..., P, G)` per reward.
        weights: w, one per reward; `None`: all 1.
        ddof: 0 or 1, of both standard deviations.
        epsilon: ε, in units of reward and of the sum.

    Reference: GDPO, arXiv 2601.05242, as TRL 1.16's `normalize_then_sum` has it. ms-swift adds 1e-8, verl 1e-6 and
        whitens over tokens instead of responses.
    Departures: a reward that is equal throughout a group contributes exactly 0 there.

    Raises:
        BatchError: no reward, rewards of different shapes, another number of weights, groups of one response, or
            rewards that are not finite floating-point numbers.
        ConfigError: `ddof` is neither 0 nor 1, or `epsilon` is negative.

    Example:
        >>> import torch
        >>> right, short = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.9]])
        >>> gdpo([right, short], ddof=0, epsilon=0.0).tolist()  # +1 - 1 and -1 + 1
        [[0.0, 0.0]]
        >>> gdpo([right, short], [1.0, 0.5], ddof=0, epsilon=0.0).tolist()
        [[1.0, -1.0]]
    """
    check_ddof("gdpo", ddof)
    check_not_negative("gdpo", "epsilon", epsilon)
    parts = [readable(part, "gdpo", least=2) for part in rewards]
    if not parts or any(part.shape != parts[0].shape for part in parts):
        raise BatchError(
            f"gdpo got rewards of shapes {[tuple(part.shape) for part in parts]}; expected at least one, and all of "
            "one shape (..., P, G)"
        )
    scale = [1.0] * len(parts) if weights is None else list(weights)
    if len(scale) != len(parts):
        raise BatchError(f"gdpo got {len(scale)} weights for {len(parts)} rewards; expected one per reward")
    total = torch.zeros_like(parts[0])
    for weight, part in zip(scale, parts, strict=True):
        total = total + weight * group_standardised(part, ddof=ddof, epsilon=epsilon)
    everything = total.flatten(-2)
    # The parts are of the order of 1: what is left of them when they cancel is no deviation.
    constant = (everything.amax(-1) - everything.amin(-1) <= 64 * torch.finfo(total.dtype).eps)[..., None, None]
    mean = everything.mean(-1)[..., None, None]
    squares = (total - mean).square().sum((-2, -1), keepdim=True)
    deviation = (squares / (everything.shape[-1] - ddof)).sqrt() + epsilon
    return torch.where(constant, 0.0, (total - mean) / deviation.masked_fill(constant, 1))
