"""M2PO: PPO's clip, as wide as the second moment of the harmful log-ratios allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval, token_average
from testbed.objectives._base import (
    Hyper,
    Objective,
    Presets,
    check_choice,
    check_range,
    clipped_surrogate,
    objective,
    tensor_like,
)


@objective("m2po")
@dataclass(frozen=True, kw_only=True)
class M2PO(Objective):
    """Clips no token while the mean squared log-ratio is within a budget, and only the farthest ones beyond it.

        harmful = {A > 0, r > 1} ∪ {A < 0, r < 1},   v = z² on them, n of them
        τ² = the largest v_j with Σ_i min(v_i, v_j) < B·n;  no clip at all where mean v ≤ B
        low = min(e^-τ, 1-ε_low),   high = max(e^τ, 1+ε_high)
        ℓ = -min(rA, clip(r, low, high)·A)          F as PPO

    The token that sets τ is inside. One τ serves the whole batch: micro-batches would have others.

        second_moment="sampler": v = (log p_sampler - log q)² on all tokens; the largest are dropped until the mean of
        the rest is below B, and the rest is PPO with 1 ∓ 0.2

    Reference: M2PO, arXiv 2510.01161, the authors' `compute_m2po_policy_loss` (B = 0.04, bounds never tighter than 0.7
        and 1.5). `preset="areal"`: AReaL 1.0.4, `_apply_m2po_masking`, an algorithm of its own under the same name.
    Departures: the authors subtract 10⁻¹² from τ², so that rounding decides whether the token that set τ is clipped.
        AReaL divides by the number of kept tokens; the reduction divides by all.
    Gradient: dℓ/dlog p = -F·A; none through τ or the choice, to the old policy or the advantages.

    Raises:
        BatchError: when called without `sampler_log_probs` and `second_moment="sampler"`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.full((1, 3), -3.0)
        >>> new = old + torch.tensor([[0.1, 0.2, 2.0]])
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.ones(1), mask=new < 0)
        >>> # B·n = 0.12. v = 0.01, 0.04, 4: capped at 0.04 they add up to 0.09. τ = 0.2, and the floor 1.5 is wider.
        >>> M2PO().clip_interval(batch).high.item()
        1.5
    """

    needs_whole_batch = True
    presets: ClassVar[Presets] = {
        "areal": {"second_moment": "sampler", "clip_low": 0.2, "clip_high": 0.2},
    }

    budget: Hyper = 0.04
    """B ≥ 0: the largest mean squared log-ratio, nats²."""
    clip_low: Hyper = 0.3
    """ε_low ≥ 0: the lower bound is at most 1 - ε_low."""
    clip_high: Hyper = 0.5
    """ε_high ≥ 0: the upper bound is at least 1 + ε_high."""
    second_moment: Literal["harmful", "sampler"] = "harmful"
    """Whose second moment is bounded: harmful tokens' ratios to the old policy, or the old policy's to the sampler."""

    def __post_init__(self) -> None:
        if self.second_moment == "sampler":
            object.__setattr__(self, "needs", ("sampler_log_probs",))
        super().__post_init__()

    def check(self) -> None:
        check_range(self.name, "budget", self.budget, 0, float("inf"))
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"))
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))
        check_choice(self.name, "second_moment", self.second_moment, ("harmful", "sampler"))

    def tau(self, batch: TokenBatch) -> Tensor:
        """τ, `(..., 1, 1)`; infinite where the budget is kept without a clip, 0 where no token fits."""
        log_ratio, advantages = batch.log_ratio.detach(), batch.advantages
        harmful = batch.mask & (log_ratio * advantages > 0)
        moments = log_ratio.square().masked_fill(~harmful, 0).flatten(-2).sort(dim=-1).values
        count = harmful.sum((-2, -1)).to(moments.dtype).unsqueeze(-1)
        places = torch.arange(moments.shape[-1], dtype=moments.dtype, device=moments.device)
        # Sorted, the sum of min(v_i, v_j) is what stands up to j, and v_j for each one behind it. Zeros add nothing.
        capped = moments.cumsum(-1) + moments * (moments.shape[-1] - 1 - places)
        budget = self._per_batch(self.budget, moments)
        allowed = moments.masked_fill(~(capped < budget * count), 0).amax(-1, keepdim=True).sqrt()
        within = moments.sum(-1, keepdim=True) <= budget * count
        return allowed.masked_fill(within, float("inf")).unsqueeze(-1)

    def dropped(self, batch: TokenBatch) -> Tensor:
        """The tokens without loss and gradient because of the sampler's second moment, bool `(..., B, T)`."""
        if self.second_moment == "harmful":
            return torch.zeros_like(batch.mask)
        (sampler,) = batch.require("sampler_log_probs", reason="m2po bounds the sampler's second moment")
        moments = (sampler - batch.old_log_probs).square().masked_fill(~batch.mask, -1).flatten(-2)
        ordered = moments.sort(dim=-1).values
        real = ordered >= 0
        means = ordered.masked_fill(~real, 0).cumsum(-1) / real.cumsum(-1).clamp(min=1)
        fits = real & (means < self._per_batch(self.budget, moments))
        smallest = ordered.masked_fill(~real, float("inf")).amin(-1, keepdim=True)
        limit = torch.maximum(ordered.masked_fill(~fits, -1).amax(-1, keepdim=True), smallest)
        return batch.mask & (moments > limit).view(*limit.shape[:-1], *batch.mask.shape[-2:])

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        low, high = 1 - tensor_like(self.clip_low, batch.log_probs), 1 + tensor_like(self.clip_high, batch.log_probs)
        if self.second_moment == "sampler":
            return ClipInterval(low, high)
        tau = self.tau(batch)
        return ClipInterval(torch.minimum((-tau).exp(), low), torch.maximum(tau.exp(), high))

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {"mask/fraction": token_average(self.dropped(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        low, high, *_ = self.clip_interval(batch)
        return clipped_surrogate(batch.ratio, batch.advantages, low, high).masked_fill(self.dropped(batch), 0)

    @staticmethod
    def _per_batch(value: Hyper, like: Tensor) -> Tensor:
        """A hyper-parameter `(..., 1, 1)` or a number beside one row of tokens per batch, `(..., N)`."""
        tensor = tensor_like(value, like)
        return tensor.squeeze(-1) if tensor.dim() >= 2 else tensor
