"""BandPO: ratio bounds that allow every token the same divergence, whatever its probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives._base import (
    Hyper,
    Objective,
    check_choice,
    check_flag,
    check_range,
    clipped_surrogate,
    objective,
    tensor_like,
)

_CERTAIN, _TOP = 1e-6, 100.0
_RELAXED = (0.8, 1.28)
_HALVINGS = 64


@objective("bandpo")
@dataclass(frozen=True, kw_only=True)
class BandPO(Objective):
    """PPO's clip with bounds from a trust region: all r for which D(q ‖ rq) ≤ δ, of the split "this token or another".

        ℓ = -min(rA, clip(r, low(q), high(q))·A)          F as PPO

        tv     ½Σ|·|            low, high = 1 ∓ δ/q
        chi2   Σ(·)²/q          low, high = 1 ∓ √(δ(1-q)/q)
        kl     q log(1/r) + (1-q) log((1-q)/(1-rq)) = δ          two roots, by bisection

    then 0 ≤ low ≤ 1 ≤ high ≤ min(1/q, 100). An unlikely token may rise by several times its probability, a likely one
    hardly at all.

    Reference: BandPO, arXiv 2603.04918, as the authors' code has it (OpenMOSS/BandPO 0de49cd).
    Departures: the authors' function relaxes the bounds unless told otherwise; their published scripts switch that
        off, as here, and add a dual clip at 10 and a k3 penalty of 10⁻³. The bisection stops at the precision of
        float64 instead of 10⁻⁶. Without relaxation and cap, tv and kl have the gradient of `dppo`.
    Gradient: dℓ/dlog p = -F·A; none through the bounds, to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.tensor([[0.5, 0.01]]).log()
        >>> batch = TokenBatch(log_probs=old, old_log_probs=old, advantages=torch.ones(1), mask=old < 0)
        >>> low, high, *_ = BandPO().clip_interval(batch)
        >>> [[round(bound, 4) for bound in bounds] for bounds in (low[0].tolist(), high[0].tolist())]
        [[0.9, 0.0], [1.1, 6.0]]
    """

    divergence: Literal["tv", "chi2", "kl"] = "tv"
    """D: total variation, χ² or KL(old ‖ current) of the two-way split."""
    delta: Hyper = 0.05
    """δ ≥ 0: the divergence a token may move by."""
    relax: bool = False
    """Whether no bound is tighter than 0.8 and 1.28."""
    reduction: str = "seq_mean_token_mean"

    def check(self) -> None:
        check_choice(self.name, "divergence", self.divergence, ("tv", "chi2", "kl"))
        check_range(self.name, "delta", self.delta, 0, float("inf"), open_high=True)
        check_flag(self.name, "relax", self.relax)

    def bounds(self, probability: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest ratio for tokens of old probability q, any shape, both of q's shape."""
        q = probability.double()
        delta = tensor_like(self.delta, q)
        if self.divergence == "tv":
            low, high = 1 - delta / q, 1 + delta / q
            certain = 1 - delta
        elif self.divergence == "chi2":
            reach = (delta * (1 - q) / q).sqrt()
            low, high = 1 - reach, 1 + reach
            certain = torch.ones_like(delta)
        else:
            low, high = _kl_roots(q, delta)
            certain = (-delta).exp()
        sure, unlikely = q > 1 - _CERTAIN, q < _CERTAIN
        low = torch.where(sure, certain, low).masked_fill(unlikely, 0)
        high = torch.where(unlikely, 1 / q, high).masked_fill(sure, 1)
        low, high = low.clamp(min=0), torch.minimum(high, 1 / q)
        if self.relax:
            low, high = low.clamp(max=_RELAXED[0]), high.clamp(min=_RELAXED[1])
        return low.clamp(0, 1).to(probability.dtype), high.clamp(1, _TOP).to(probability.dtype)

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(*self.bounds(batch.old_log_probs.exp()))

    def token_loss(self, batch: TokenBatch) -> Tensor:
        low, high, *_ = self.clip_interval(batch)
        return clipped_surrogate(batch.ratio, batch.advantages, low, high)


def _kl_roots(q: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Both r with KL(q ‖ rq) = δ of the two-way split; 0 and 1/q where the divergence never gets that far."""
    inside = q.clamp(torch.finfo(q.dtype).tiny, 1 - torch.finfo(q.dtype).eps)

    def divergence(ratio: Tensor) -> Tensor:
        # log((1-q)/(1-rq)) by the difference of the two, which keeps its digits near r = 1.
        return -inside * ratio.log() - (1 - inside) * (inside * (1 - ratio) / (1 - inside)).log1p()

    roots = []
    for near, far in ((torch.ones_like(q), torch.zeros_like(q)), (torch.ones_like(q), 1 / inside)):
        allowed, forbidden = near, far
        for _ in range(_HALVINGS):
            middle = (allowed + forbidden) / 2
            fits = divergence(middle) <= delta
            allowed, forbidden = torch.where(fits, middle, allowed), torch.where(fits, forbidden, middle)
        roots.append(allowed)
    return roots[0], roots[1]
