"""FIPO: a token's update is scaled by how the probabilities of the tokens after it have moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.errors import ConfigError
from testbed.objectives._base import Hyper, Objective, check_range, clamp, clipped_surrogate, objective


@objective("fipo")
@dataclass(frozen=True, kw_only=True)
class FIPO(Objective):
    """DAPO's clipped objective, each token weighted by the discounted change of the log-probabilities from it on.

        K_t = Σ_{k≥t} γ^{k-t}·z_k·1{z_k ≤ log c},   γ = 2^{-1/h}
        f_t = clip(e^{K_t}, f_low, f_high);  where A < 0 and r_t > safety: f_t ← clip(f_t, 0.8, 1)
        ℓ = -f_t·min(rA, clip(r, 1-ε_low, 1+ε_high)·A), with a dual clip at c for A < 0          F = f_t·F_PPO

    f does not look at the sign of A: a token followed by rising probabilities is amplified whether it is rewarded or
    punished. At the first update of a rollout every f is 1.

    Reference: FIPO, arXiv 2603.19835, as the authors' code has it (Henrymachiyu/FIPO be1f2c9; h = 32, f in [1, 1.2],
        c = 10, safety 10, the settings of the 32B script).
    Departures: the authors also leave out every response with two or more tokens beyond the dual clip; ms-swift does
        not, and takes 4 for `safety`.
    Gradient: dℓ/dlog p = -F·A; none through f, to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.full((1, 2), -2.0)
        >>> new = old + torch.tensor([[0.0, 0.1]])
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.ones(1), mask=new < 0)
        >>> FIPO(half_life=1.0).influence(batch).log().mul(100).round()[0].tolist()  # z = 0, 0.1 and γ = ½
        [5.0, 10.0]
    """

    cuts_gradient = "the influence f"

    clip_low: Hyper = 0.2
    """ε_low ≥ 0: the ratio may fall to 1 - ε_low."""
    clip_high: Hyper = 0.28
    """ε_high ≥ 0: the ratio may rise to 1 + ε_high."""
    dual_clip: Hyper | None = 10.0
    """c > 1: for A < 0 the ratio above which the gradient is zero; no K counts a ratio beyond it. None: no limit."""
    half_life: float = 32.0
    """h > 0: the number of tokens after which a change counts half."""
    influence_low: Hyper = 1.0
    """f_low ≥ 0: the smallest weight; 1: tokens are amplified only."""
    influence_high: Hyper = 1.2
    """f_high ≥ 0: the largest weight, also where f_low is larger."""
    safety: Hyper = 10.0
    """The ratio beyond which a token with A < 0 is not amplified."""

    def check(self) -> None:
        infinity = float("inf")
        check_range(self.name, "clip_low", self.clip_low, 0, infinity)
        check_range(self.name, "clip_high", self.clip_high, 0, infinity)
        check_range(self.name, "dual_clip", self.dual_clip, 1, infinity, open_low=True, open_high=True, optional=True)
        if isinstance(self.half_life, Tensor):
            raise ConfigError(f"{self.name}: half_life is a tensor; expected one number for all replicas")
        check_range(self.name, "half_life", self.half_life, 0, infinity, open_low=True)
        check_range(self.name, "influence_low", self.influence_low, 0, infinity)
        check_range(self.name, "influence_high", self.influence_high, 0, infinity)
        check_range(self.name, "safety", self.safety, 0, infinity)

    def influence(self, batch: TokenBatch) -> Tensor:
        """f, `(..., B, T)`, a constant."""
        changes = batch.log_ratio.detach()
        if self.dual_clip is not None:
            limit = self.dual_clip.log() if isinstance(self.dual_clip, Tensor) else math.log(self.dual_clip)
            changes = changes.masked_fill(changes > limit, 0)
        # Each turn doubles the number of tokens whose changes a place has summed.
        discount, reach = 2 ** (-1 / self.half_life), 1
        future = changes
        while reach < future.shape[-1]:
            later = torch.nn.functional.pad(future[..., reach:], (0, reach))
            future = future + discount**reach * later
            reach *= 2
        weights = clamp(future.exp(), self.influence_low, self.influence_high)
        risky = (batch.advantages < 0) & (batch.ratio.detach() > self.safety)
        return torch.where(risky, weights.clamp(0.8, 1), weights)

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(1 - self.clip_low, 1 + self.clip_high, ceiling=self.dual_clip)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        low, high, ceiling, *_ = self.clip_interval(batch)
        return self.influence(batch) * clipped_surrogate(batch.ratio, batch.advantages, low, high, ceiling)
