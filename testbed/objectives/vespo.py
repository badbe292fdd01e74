"""VESPO: a smooth weight of the whole response's probability ratio."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.masking import clamp_log_ratio
from testbed.objectives._base import Objective, check_pair, objective, score_loss


@objective("vespo")
@dataclass(frozen=True, kw_only=True)
class VESPO(Objective):
    """Pushes every token of a response by its advantage times a gamma-shaped function of the response's ratio.

        W_i = exp(Σ_t z_it),   φ(W) = W^c₁ · exp(c₂(1 - W)),   ℓ_it = -sg[φ(W_i)]·A·log p_it          F = φ(W_i)

    φ(1) = 1, and φ falls to 0 on both sides of its peak at c₁/c₂: a response that became too likely or too unlikely
    fades out as a whole. W is not normalised by length.

    Reference: VESPO, arXiv 2602.10693v3, the objective with its recommended (c₁, c₂).
    Departures: Σ_t z is clamped to ±20, where φ is 0 to 16 digits; single tokens are not. A = 0 takes the
        positive pair, which changes nothing. TRL clamps from below at W = 1e-8.
    Gradient: dℓ/dlog p = -φ·A; none through φ, the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-1.0, -1.0]], requires_grad=True)
        >>> ones = torch.ones(1, 2)
        >>> batch = TokenBatch(log_probs=new, old_log_probs=-ones, advantages=ones, mask=ones.bool())
        >>> VESPO()(batch).loss.item()  # W = 1, so REINFORCE: the mean of -log p
        1.0
    """

    cuts_gradient = "the weight φ(W)"

    pos: tuple[float, float] = (2.0, 3.0)
    """(c₁, c₂) for A ≥ 0, both ≥ 0; the weight's second moment is bounded for c₁ ≥ 1."""
    neg: tuple[float, float] = (3.0, 2.0)
    """(c₁, c₂) for A < 0, likewise."""

    def check(self) -> None:
        for name, pair in (("pos", self.pos), ("neg", self.neg)):
            check_pair(self.name, name, pair, "(c1, c2), both in [0, inf)", allowed=lambda c1, c2: c1 >= 0 <= c2)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        log_ratio = clamp_log_ratio(batch.unclamped_log_ratio.detach().sum(-1, keepdim=True))
        positive, negative = (
            (power * log_ratio + decay * (1 - log_ratio.exp())).exp() for power, decay in (self.pos, self.neg)
        )
        return score_loss(torch.where(batch.advantages >= 0, positive, negative), batch)
