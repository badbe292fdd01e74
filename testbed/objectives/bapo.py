"""BAPO: clip bounds searched anew for every batch until positive tokens carry enough of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.errors import ConfigError, shown
from testbed.objectives._base import (
    HardClip,
    Hyper,
    Presets,
    check_choice,
    check_pair,
    check_range,
    objective,
    tensor_like,
)

MOST_STEPS = 1000
"""Steps of a bound at most: every token is compared with the bounds of every step."""


@objective("bapo")
@dataclass(frozen=True, kw_only=True)
class BAPO(HardClip):
    """PPO's clipped objective with bounds widened step by step until positive tokens reach a share of the loss.

        ℓ = -min(rA, clip(r, c_low, c_high)·A)
        ρ(c_low, c_high) = Σ_{A>0} |min(rA, clip(r)A)| / Σ_all |min(rA, clip(r)A)|

        start at (a⁻, a⁺); while ρ < ρ₀ and c_low + δ_low ≤ b⁻:
            raise c_high by δ_high if that stays ≤ b⁺, otherwise raise c_low by δ_low

        F = r, but 0 where A > 0, r > c_high;  where A < 0, r < c_low;  where A < 0, r > c of the dual clip

    The search runs for all replicas at once, over integer step counts, so that binary fractions never cost a step. It
    reads the whole batch: micro-batches would choose other bounds.

    With `contribution="value"`, the printed formula, ρ does not rise with c_low: a negative token below the bound
    counts with max(r, c_low)·|A|, so the second phase of the search cannot help. `"active"` sums only tokens that keep
    a gradient, which is what the text describes; there a higher c_low does raise ρ.

    Reference: Xi et al., BAPO, arXiv 2510.18927v1, eq. 8 and algorithm 1.
    Departures: 1. the factor π_rollout of eq. 8 is the density of an expectation and is 1 for sampled tokens, as in the
        released code. 2. No positive token: the search ends at the widest bounds. No token with A ≠ 0: ρ is 0/0 and
        the start bounds are kept. `preset="released"` is the authors' example script: lower bound first, other
        ranges and steps, a share of 1/3, a token mean and a dual clip of 3.
    Gradient: dℓ/dlog p = -F·A; the chosen bounds are constants.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[1.0], [0.0]])  # ratios e and 1
        >>> batch = TokenBatch(
        ...     log_probs=new,
        ...     old_log_probs=0 * new,
        ...     advantages=torch.tensor([1.0, -2.0]),
        ...     mask=torch.ones(2, 1).bool(),
        ... )
        >>> low, high = BAPO().search(batch)  # 1.35/3.35 = 0.403 is the first share to reach 0.4
        >>> round(low.item(), 6), round(high.item(), 6)
        (0.6, 1.35)
    """

    needs_whole_batch = True
    # The search costs far more than a graph, and recorded runs were made with one.
    closed_form = False
    presets: ClassVar[Presets] = {
        "released": {
            # The script asks for a positive-to-negative ratio of 1/2, which is a share of 1/3.
            "target": 1 / 3,
            "low_range": (0.8, 0.95),
            "high_range": (1.2, 2.0),
            "low_step": 0.05,
            "high_step": 0.1,
            "order": "lower_first",
            "dual_clip": 3.0,
            "reduction": "token_mean",
        }
    }

    target: Hyper = 0.4
    """ρ₀ in [0, 1]: the share of the summed contributions that positive tokens should reach."""
    low_range: tuple[float, float] = (0.6, 0.9)
    """(a⁻, b⁻): where the lower bound of the ratio starts and how far it may rise; 0 ≤ a⁻ ≤ b⁻ ≤ 1."""
    high_range: tuple[float, float] = (1.2, 3.0)
    """(a⁺, b⁺): where the upper bound of the ratio starts and how far it may rise; 1 ≤ a⁺ ≤ b⁺."""
    low_step: float = 0.02
    """δ_low > 0: step of the lower bound."""
    high_step: float = 0.05
    """δ_high > 0: step of the upper bound."""
    order: Literal["upper_first", "lower_first"] = "upper_first"
    """Which bound the search exhausts first; the paper raises the upper one."""
    contribution: Literal["value", "active"] = "value"
    """What ρ sums: the clipped value of every token, or only tokens that keep a gradient."""
    dual_clip: Hyper | None = None
    """c > 1: for A < 0, the ratio above which the gradient is zero. None: no ceiling; the released code uses 3."""
    reduction: str = "seq_mean_token_sum"

    def check(self) -> None:
        check_range(self.name, "target", self.target, 0, 1)
        check_range(self.name, "low_step", self.low_step, 0, float("inf"), open_high=True, open_low=True)
        check_range(self.name, "high_step", self.high_step, 0, float("inf"), open_high=True, open_low=True)
        check_range(
            self.name, "dual_clip", self.dual_clip, 1, float("inf"), open_low=True, open_high=True, optional=True
        )
        check_pair(
            self.name,
            "low_range",
            self.low_range,
            "(start, end) with 0.0 <= start <= end <= 1.0",
            allowed=lambda start, end: 0 <= start <= end <= 1,
        )
        check_pair(
            self.name,
            "high_range",
            self.high_range,
            "(start, end) with 1.0 <= start <= end < inf",
            allowed=lambda start, end: 1 <= start <= end < float("inf"),
        )
        for name, (start, end) in (("low_step", self.low_range), ("high_step", self.high_range)):
            step = getattr(self, name)
            if isinstance(step, Tensor) or (end - start) / step > MOST_STEPS:
                raise ConfigError(
                    f"bapo: {name} is {shown(step)}; expected one number for all replicas, from {start} to "
                    f"{end} in at most {MOST_STEPS} steps"
                )
        check_choice(self.name, "order", self.order, ("upper_first", "lower_first"))
        check_choice(self.name, "contribution", self.contribution, ("value", "active"))

    def candidates(self) -> list[tuple[float, float]]:
        """The pairs (c_low, c_high) in the order the search visits them."""
        lows = _grid(self.low_range, self.low_step)
        highs = _grid(self.high_range, self.high_step)
        if self.order == "lower_first":
            # The loop ends when the bound raised last has no step left, so it never starts if there is none.
            path = [(low, highs[0]) for low in lows] + [(lows[-1], high) for high in highs[1:]]
            return path if len(highs) > 1 else path[:1]
        path = [(lows[0], high) for high in highs] + [(low, highs[-1]) for low in lows[1:]]
        return path if len(lows) > 1 else path[:1]

    def positive_shares(self, batch: TokenBatch, lows: Tensor, highs: Tensor) -> Tensor:
        """ρ for each pair of bounds; `lows` and `highs` are `(..., C)`, as is the result, NaN where it is 0/0."""
        ratio = batch.ratio.detach().flatten(-2).unsqueeze(-2)
        advantages = batch.advantages.flatten(-2).unsqueeze(-2)
        low, high = lows.unsqueeze(-1), highs.unsqueeze(-1)
        if self.contribution == "active":
            weight = ratio * torch.where(advantages > 0, ratio <= high, ratio >= low)
        else:
            weight = torch.where(advantages > 0, ratio.minimum(high), ratio.maximum(low))
        counted = weight * advantages.abs()
        return (counted * (advantages > 0)).sum(-1) / counted.sum(-1)

    def search(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """The chosen (c_low, c_high) of each replica, `(..., 1, 1)` each."""
        with torch.no_grad():
            path = torch.tensor(self.candidates(), dtype=batch.ratio.dtype, device=batch.ratio.device)
            lows, highs = path.unbind(-1)
            shares = self.positive_shares(batch, lows, highs)
            target = tensor_like(self.target, shares)
            if target.dim() >= 2:
                target = target.squeeze(-1)
            # NaN compares false: without any advantage the search stops where it starts.
            reached = ~(shares < target)
            reached[..., -1] = True
            chosen = reached.int().argmax(-1)
        return lows[chosen][..., None, None], highs[chosen][..., None, None]

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(*self.search(batch), ceiling=self.dual_clip)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        low, high = (bound.squeeze(-1) for bound in self.search(batch))
        return {
            "bapo/clip_low": low.squeeze(-1),
            "bapo/clip_high": high.squeeze(-1),
            "bapo/positive_fraction": self.positive_shares(batch, low, high).squeeze(-1),
        }


def _grid(interval: tuple[float, float], step: float) -> list[float]:
    start, end = interval
    # 1e-9 of a step: 0.6 + 15 · 0.02 must count as reaching 0.9 although it falls short in binary.
    steps = int((end - start) / step + 1e-9)
    return [round(start + index * step, 12) for index in range(steps + 1)]
