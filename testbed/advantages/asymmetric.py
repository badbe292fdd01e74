"""A baseline that is deliberately off the mean."""

from __future__ import annotations

import math

from torch import Tensor

from testbed.advantages._base import advantages, readable
from testbed.errors import ConfigError

__all__ = ["asymmetric"]


@advantages.register("asymmetric")
def asymmetric(rewards: Tensor, *, shift: float = -0.1) -> Tensor:
    """A_i = R_i - (mean R + δ): with δ < 0 more is pushed up than down.

    A group without variance is not neutral: all its responses get -δ, the failures of an all-wrong group among them.

    Args:
        rewards: `(..., P, G)`.
        shift: δ, in units of reward.

    Reference: AsymRE, arXiv 2506.20520, as Trinity-RFT 0.6.0 has it (δV = -0.1).
    Departures: none.

    Raises:
        BatchError: rewards that are not finite floating-point numbers.
        ConfigError: `shift` is not finite.

    Example:
        >>> import torch
        >>> asymmetric(torch.tensor([[1.0, 0.0]]), shift=-0.25).tolist()
        [[0.75, -0.25]]
    """
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not math.isfinite(shift):
        raise ConfigError(f"asymmetric: shift is {shift!r}; expected a finite number")
    rewards = readable(rewards, "asymmetric")
    return rewards - rewards.mean(-1, keepdim=True) - shift
