"""SAPO: a smooth gate instead of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.masking import gradient_through_clamp
from testbed.objectives._base import Hyper, Objective, check_range, choose, objective


@objective("sapo")
@dataclass(frozen=True, kw_only=True)
class SAPO(Objective):
    """Fades a token's update smoothly as its ratio leaves 1, faster for negative advantages.

        ℓ = -(4/τ)·σ(τ(r-1))·A,   τ = τ_pos where A > 0, τ_neg elsewhere

        F = r·sech²(τ(r-1)/2)

    F = 1 at r = 1 for every τ, and F peaks at 1.57 near r = 2.06 for τ = 1. The value at r = 1 is -2A/τ, not -A: loss
    values of the two signs are not comparable with each other or with another objective.

    Reference: Gao et al., Soft adaptive policy optimization, arXiv 2511.20347v2, eq. 5-9.
    Departures: none. verl and TRL fix the reduction to the default here.
    Gradient: dℓ/dlog p = -F·A through σ and r; nothing is cut except the old policy and the advantages.

    Example:
        >>> from testbed import TokenBatch
        >>> new = torch.zeros(1, 1, requires_grad=True)
        >>> one = torch.ones(1, 1)
        >>> output = SAPO()(TokenBatch(log_probs=new, old_log_probs=0 * one, advantages=one, mask=one.bool()))
        >>> output.loss.item()
        -2.0
        >>> output.loss.backward()
        >>> new.grad.item()
        -1.0
    """

    tau_pos: Hyper = 1.0
    """τ_pos > 0: how fast the gate closes for positive advantages."""
    tau_neg: Hyper = 1.05
    """τ_neg > 0: the same for negative advantages; larger fades them sooner."""
    reduction: str = "seq_mean_token_mean"

    def check(self) -> None:
        check_range(self.name, "tau_pos", self.tau_pos, 0, float("inf"), open_high=True, open_low=True)
        check_range(self.name, "tau_neg", self.tau_neg, 0, float("inf"), open_high=True, open_low=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        tau = self._tau(batch)
        return torch.sigmoid(tau * (batch.ratio - 1)) * (-4 * batch.advantages / tau)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor:
        ratio, difference = batch.ratio_and_difference()
        gate = torch.sigmoid(self._tau(batch) * (ratio - 1))
        weight = 4 * gate * (1 - gate) * ratio
        return gradient_through_clamp(weight * batch.opposite_advantages, difference)

    def _tau(self, batch: TokenBatch) -> Tensor:
        advantages = batch.advantages if batch.response_advantages is None else batch.response_advantages
        return choose(advantages > 0, self.tau_pos, self.tau_neg, advantages)
