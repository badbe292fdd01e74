"""CISPO: REINFORCE weighted by a clipped ratio that no token is dropped for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives._base import Hyper, Objective, check_range, clamp, objective, score_loss


@objective("cispo")
@dataclass(frozen=True, kw_only=True)
class CISPO(Objective):
    """Pushes every token by its advantage times the ratio, the ratio held in an interval and constant.

        w = clip(r, 1-ε_low, 1+ε_high),   ℓ = -sg[w]·A·log p          F = w

    No token loses its gradient, whatever its ratio. The value contains log p and is not comparable with that of a
    ratio objective.

    Reference: MiniMax-M1, arXiv 2506.13585, eq. 4 and 5.
    Departures: none; as in the paper's runs there is no lower bound by default. verl clips on both sides, at 0.2
        each: `clip_low=0.2`. TRL and ms-swift read `epsilon_high` as an absolute ceiling without a lower bound:
        their 5.0 is `clip_high=4.0`, and their default of 0.2 is `clip_high=-0.8`, which scales an on-policy step
        by 0.2.
    Gradient: dℓ/dlog p = -w·A; none through the weight, the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-1.0]], requires_grad=True)
        >>> one = torch.ones(1, 1)
        >>> batch = TokenBatch(log_probs=new, old_log_probs=-3 * one, advantages=one, mask=one.bool())
        >>> CISPO()(batch).loss.item()  # ratio e² = 7.39, held at 1.2; -1.2 · log p
        1.2000000476837158
    """

    cuts_gradient = "the weight w"

    clip_low: Hyper | None = None
    """ε_low ≥ 0: the weight is at least 1 - ε_low. None: no lower bound."""
    clip_high: Hyper = 0.2
    """ε_high > -1: the weight is at most 1 + ε_high; below 0 it scales down tokens at ratio 1 as well."""

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"), optional=True)
        check_range(self.name, "clip_high", self.clip_high, -1, float("inf"), open_low=True)

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        low = 0.0 if self.clip_low is None else 1 - self.clip_low
        return ClipInterval(low, 1 + self.clip_high, keeps_gradient=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        low, high, *_ = self.clip_interval(batch)
        # Read before the ratio, the masked log-probabilities spare it a masking of its own.
        _ = batch.log_probs
        return score_loss(clamp(batch.ratio.detach(), low, high), batch)
