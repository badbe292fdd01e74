"""A baseline that leans towards the best response of the group."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from testbed.advantages._base import advantages, readable, zero_variance
from testbed.errors import ConfigError

__all__ = ["log_mean_exp"]


@advantages.register("log_mean_exp")
def log_mean_exp(rewards: Tensor, *, tau: float = 1.0) -> Tensor:
    """A_i = R_i - τ·log mean_j e^{R_j/τ}: between the mean, for τ → ∞, and the largest reward, for τ → 0.

    Args:
        rewards: `(..., P, G)`.
        tau: τ > 0, in units of reward.

    Reference: Trinity-RFT 0.6.0, `opmd_advantage`, the baseline of the objective `opmd`.
    Departures: a group of equal rewards gives exactly 0.

    Raises:
        BatchError: rewards that are not finite floating-point numbers.
        ConfigError: `tau` is not positive.

    Example:
        >>> import torch
        >>> log_mean_exp(torch.tensor([[1.0, 0.0]]).double()).tolist()  # log((1 + e)/2) = 0.6201
        [[0.3798..., -0.6201...]]
    """
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 < tau < math.inf:
        raise ConfigError(f"log_mean_exp: tau is {tau!r}; expected a positive number")
    rewards = readable(rewards, "log_mean_exp")
    baseline = tau * (torch.logsumexp(rewards / tau, -1, keepdim=True) - math.log(rewards.shape[-1]))
    return (rewards - baseline).masked_fill(zero_variance(rewards).unsqueeze(-1), 0)
