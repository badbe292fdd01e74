"""Clip_V: a very few punished tokens that would cost far more entropy than expected are left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, check_range, objective, tensor_like
from testbed.objectives._covariance import largest, ranked
from testbed.objectives._entropy_clip import EntropyClip, deviation, entropy_slope, some_spread


@objective("clip_v")
@dataclass(frozen=True, kw_only=True)
class ClipV(EntropyClip):
    """PPO without the tokens of A < 0 whose effect on entropy is far below what their position leads one to expect.

        S = q·(H_old + log q),   κ = Σ_v q_v²(H_old + log q_v), the mean of S over the position's own distribution
        D = κ - S
        dropped where A < 0 and D > μ·sd D, at most max(⌊ρN⌋, 1) of N tokens, largest D first
        ℓ = 0 where dropped, PPO's elsewhere

    Unlike `clip_b` a token is compared with its own position and not with the batch.

    Reference: arXiv 2602.03392, as Trinity-RFT 0.6.0 and its authors' example have it (μ = 8.5, ρ = 10⁻⁴).
    Departures: dropped tokens stay in the divisor, as in every objective here; Trinity takes them out
        (`preset="trinity"`). Trinity's constructor has μ = 2.
    Gradient: PPO's, and 0 where dropped; none through the choice.

    Raises:
        BatchError: when called without `old_entropies` or `old_kappas`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.tensor([[0.5, 0.5, 0.1]]).log()
        >>> ones = torch.ones(1, 3)
        >>> batch = TokenBatch(
        ...     log_probs=old,
        ...     old_log_probs=old,
        ...     advantages=-torch.ones(1),
        ...     mask=old < 0,
        ...     old_entropies=ones,
        ...     old_kappas=0.1 * ones,
        ... )
        >>> ClipV(mu=1.0).dropped(batch).tolist()  # D = -0.053, -0.053, 0.230, of standard deviation 0.134
        [[False, False, True]]
    """

    needs = ("old_entropies", "old_kappas")

    mu: Hyper = 8.5
    """μ ≥ 0: how many standard deviations D may reach for a token of A < 0."""
    fraction: Hyper = 1e-4
    """ρ in [0, 1]: at most this share of the response tokens is left out, but always one if there is one."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "mu", self.mu, 0, float("inf"))
        check_range(self.name, "fraction", self.fraction, 0, 1)

    def dropped(self, batch: TokenBatch) -> Tensor:
        (kappas,) = batch.require("old_kappas", reason="clip_v compares each token with its own position")
        surplus = kappas - entropy_slope(batch)
        _, spread = deviation(surplus, batch)
        candidates = batch.mask & (batch.advantages < 0) & (surplus > self.mu * spread) & some_spread(spread)
        one = 1 / batch.mask.sum((-2, -1), keepdim=True).double()
        share = torch.maximum(tensor_like(self.fraction, one), one)
        return largest(ranked(surplus, batch), candidates, share, batch)
