"""GPPO: PPO's clip with the gradient kept at the bound."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives._base import (
    Hyper,
    Objective,
    check_range,
    gradient_preserving_gradient,
    gradient_preserving_surrogate,
    objective,
)


@objective("gppo")
@dataclass(frozen=True, kw_only=True)
class GPPO(Objective):
    """PPO's clipped value, but a clipped token keeps the gradient it had on the bound.

        ℓ = -min(rA, clip(r, ((1-ε_low)/sg[r])·r, ((1+ε_high)/sg[r])·r)·A)

        F = 1+ε_high where A > 0, r > 1+ε_high;  1-ε_low where A < 0, r < 1-ε_low;  r otherwise

    Reference: Su et al., Klear-Reasoner, arXiv 2508.07629, the GPPO objective.
    Departures: 1. r/sg[r] is evaluated as exp(z - sg[z]), which is finite where the quotient overflows. 2. The paper
        trains with an added α·NLL on correct responses, a separate loss that is not part of this one. 3. With
        `dual_clip=c` the loss for A < 0 is capped at -cA, as the released scripts do (c = 10).
    Gradient: dℓ/dlog p = -F·A; none through sg[·], the old policy or the advantages. Beyond |z| = 20 it is zero.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[2.0]], requires_grad=True)  # ratio e² = 7.39, far above 1.2
        >>> one = torch.ones(1, 1)
        >>> batch = TokenBatch(log_probs=new, old_log_probs=0 * one, advantages=one, mask=one.bool())
        >>> GPPO()(batch).loss.backward()
        >>> round(new.grad.item(), 6)
        -1.2
    """

    cuts_gradient = "the ratio in the denominator outside the interval"

    clip_low: Hyper = 0.2
    """ε_low in [0, 1]: below the ratio 1 - ε_low, a token with A < 0 keeps the weight 1 - ε_low."""
    clip_high: Hyper = 0.2
    """ε_high ≥ 0: above the ratio 1 + ε_high, a token with A > 0 keeps the weight 1 + ε_high."""
    dual_clip: Hyper | None = None
    """c > 1: for A < 0, the ratio above which the gradient is zero. None: no ceiling."""

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, 1)
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))
        check_range(
            self.name, "dual_clip", self.dual_clip, 1, float("inf"), open_low=True, open_high=True, optional=True
        )

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(1 - self.clip_low, 1 + self.clip_high, ceiling=self.dual_clip, keeps_gradient=True)

    def kept_shares(self) -> tuple[Hyper, Hyper]:
        """β of the gradient kept below and above the interval."""
        return 1.0, 1.0

    def token_loss(self, batch: TokenBatch) -> Tensor:
        below, above = self.kept_shares()
        low, high, ceiling, *_ = self.clip_interval(batch)
        return gradient_preserving_surrogate(batch, low, high, beta_low=below, beta_high=above, ceiling=ceiling)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor:
        below, above = self.kept_shares()
        low, high, ceiling, *_ = self.clip_interval(batch)
        return gradient_preserving_gradient(batch, low, high, beta_low=below, beta_high=above, ceiling=ceiling)
