"""ASPO: the ratio turned upside down for positive tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives._base import Hyper, Objective, check_range, clamp, objective, score_loss


@objective("aspo")
@dataclass(frozen=True, kw_only=True)
class ASPO(Objective):
    """Pushes positive tokens the harder the less likely they became, and stops where PPO does.

        w = min(1/r, c) where A > 0, min(r, c) where A < 0
        w = 0           where A > 0, r > 1+ε_high, and where A < 0, r < 1-ε_low
        ℓ = -sg[w]·A·log p          F = w

    PPO weights a positive token by r: more the further it has already risen. Here it is weighted by 1/r. The cap c is
    soft: the weight stops growing and the gradient stays.

    Reference: Wang et al., ASPO, arXiv 2510.06062v2.
    Departures: the value of the paper's cap was not available; c = 3 is the usual dual-clip constant.
    Gradient: dℓ/dlog p = -w·A; none through the weight, the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old, new = torch.tensor([[0.4, 0.4]]).log(), torch.tensor([[0.2, 0.44]]).log().requires_grad_()
        >>> ones = torch.ones(1, 2)
        >>> ASPO()(TokenBatch(log_probs=new, old_log_probs=old, advantages=ones, mask=ones.bool())).loss.backward()
        >>> [round(x, 4) for x in new.grad.flatten().tolist()]  # ratios 1/2 and 1.1, mean over two tokens
        [-1.0, -0.4545]
    """

    cuts_gradient = "the weight w"

    clip_low: Hyper = 0.2
    """ε_low ≥ 0: below the ratio 1 - ε_low, tokens with A < 0 have no gradient."""
    clip_high: Hyper = 0.2
    """ε_high ≥ 0: above the ratio 1 + ε_high, tokens with A > 0 have no gradient."""
    weight_max: Hyper = 3.0
    """c ≥ 1: the largest weight."""

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"))
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))
        check_range(self.name, "weight_max", self.weight_max, 1, float("inf"))

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(1 - self.clip_low, 1 + self.clip_high)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        log_ratio = batch.log_ratio.detach()
        weight = torch.where(batch.advantages > 0, -log_ratio, log_ratio).exp()
        clipped = self.clip_interval(batch).clipped(batch)
        return score_loss(clamp(weight, 0.0, self.weight_max).masked_fill(clipped, 0), batch)
