"""PPO's clipped ratio objective, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives._base import HardClip, Hyper, check_range, objective


@objective("ppo")
@dataclass(frozen=True, kw_only=True)
class PPO(HardClip):
    """Pushes tokens in proportion to r·A and stops once the ratio has left the interval in the direction of A.

        ℓ = -min(rA, clip(r, 1-ε_low, 1+ε_high)·A)          r = p/q
        dual clip: for A < 0, ℓ ← min(ℓ, -cA)

        F = r, but 0 where A > 0, r > 1+ε_high;  where A < 0, r < 1-ε_low;  where A < 0, r > c

    A ratio exactly on a bound counts as inside.

    Reference: Schulman et al., Proximal policy optimization algorithms, arXiv 1707.06347, eq. 7. Dual clip: Ye et al.,
        Mastering complex control in MOBA games with deep reinforcement learning, arXiv 1912.09729, eq. 5.
    Departures: 1. the two bounds are separate settings. 2. verl's `vanilla` loss always dual-clips with c = 3; here
        the dual clip is off unless asked for. TRL's `delta` is the same ceiling.
    Gradient: dℓ/dlog p = -F·A; none to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.tensor([[-1.0, -1.0]])
        >>> new = old + torch.log(torch.tensor([[1.5, 1.1]]))  # ratios 1.5 and 1.1
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.ones(1), mask=torch.ones(1, 2).bool())
        >>> round(PPO()(batch).loss.item(), 6)  # -(1.2 + 1.1) / 2
        -1.15
    """

    clip_low: Hyper = 0.2
    """ε_low ≥ 0: the ratio may fall to 1 - ε_low. 1 or more means no lower clip."""
    clip_high: Hyper = 0.2
    """ε_high ≥ 0: the ratio may rise to 1 + ε_high."""
    dual_clip: Hyper | None = None
    """c > 1: for A < 0, the ratio above which the gradient is zero as well. None: no ceiling."""

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"))
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))
        check_range(
            self.name, "dual_clip", self.dual_clip, 1, float("inf"), open_low=True, open_high=True, optional=True
        )

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(1 - self.clip_low, 1 + self.clip_high, ceiling=self.dual_clip)
