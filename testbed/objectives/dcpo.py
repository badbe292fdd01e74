"""DCPO: clip bounds that widen as the old probability falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives._base import HardClip, Hyper, Presets, check_range, objective, tensor_like


@objective("dcpo")
@dataclass(frozen=True, kw_only=True)
class DCPO(HardClip):
    """PPO's clipped objective with bounds that depend on the old probability q of the token.

        low(q)  = ½ + ½√max(1 - 4ε_low/q, 0)
        high(q) = min(½ + ½√(1 + 4ε_high/q), r_max)
        ℓ = -min(rA, clip(r, low(q), high(q))·A);  for A < 0, ℓ ← min(ℓ, -r_max·A);   L = Σ_i (1/n_i) Σ_t ℓ_it

        F = r, but 0 where A > 0, r > high;  where A < 0, r < low;  where A < 0, r > r_max

    The bounds solve |(r-1)·p| ≤ ε. A token with q > 1/1.2 can never reach its upper bound, because p = 1 comes first;
    below q = 4·ε_low the lower bound is ½ by convention.

    Reference: Yang et al., DCPO, arXiv 2509.02333v2, eq. 4, 8 and 27.
    Departures: none from the paper. `preset="released"` is the authors' script: a token mean instead of eq. 8, and
        the offsets left at 0.2 and 0.28. Their code takes the ceiling for A < 0 from another setting than the cap on
        the upper bound; here both are r_max.
    Gradient: dℓ/dlog p = -F·A; the bounds depend on q alone and are constants.

    Example:
        >>> low, high = DCPO().bounds(torch.tensor([1.0, 1 / 1.2, 1e-4], dtype=torch.float64))
        >>> [round(x, 6) for x in low.tolist()]
        [0.8, 0.740832, 0.5]
        >>> [round(x, 6) for x in high.tolist()]
        [1.17082, 1.2, 10.0]
    """

    advantage = "smooth_standardised"
    presets: ClassVar[Presets] = {"released": {"clip_low": 0.2, "clip_high": 0.28, "reduction": "token_mean"}}

    clip_low: Hyper = 0.16
    """ε_low ≥ 0: bound on the fall (1-r)·p; 0.16 makes low(1) = 0.8."""
    clip_high: Hyper = 0.2
    """ε_high ≥ 0: bound on the rise (r-1)·p; 0.2 makes high(1/1.2) = 1.2."""
    ratio_max: Hyper = 10.0
    """r_max > 1: cap on the upper bound, and ceiling of the ratio for A < 0."""
    reduction: str = "seq_sum_token_mean"

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"))
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))
        check_range(self.name, "ratio_max", self.ratio_max, 1, float("inf"), open_low=True, open_high=True)

    def bounds(self, old_probs: Tensor) -> tuple[Tensor, Tensor]:
        """low(q) and high(q) of the ratio, each of the shape of `old_probs`."""
        low = 0.5 + 0.5 * (1 - 4 * self.clip_low / old_probs).clamp(min=0).sqrt()
        high = 0.5 + 0.5 * (1 + 4 * self.clip_high / old_probs).sqrt()
        return low, torch.minimum(high, tensor_like(self.ratio_max, high))

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(*self.bounds(batch.old_log_probs.exp()), ceiling=self.ratio_max)
