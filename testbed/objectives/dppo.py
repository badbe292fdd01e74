"""DPPO: a trust region on the change of probability instead of on the ratio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.divergences import binary_kl, binary_total_variation
from testbed.objectives._base import Hyper, Objective, check_choice, check_range, clamp, objective, score_loss


@objective("dppo")
@dataclass(frozen=True, kw_only=True)
class DPPO(Objective):
    """Pushes tokens in proportion to r·A and stops those that A drives further once the policies differ by too much.

        D = |p - q|                                       divergence="tv"
        D = q log(q/p) + (1-q) log((1-q)/(1-p))           divergence="kl"
        M = 0 where D > δ and (A > 0, r > 1 or A < 0, r < 1);  1 elsewhere
        ℓ = -sg[M·min(r, C)]·A·log p          F = M·min(r, C)

    An unlikely token may change its ratio many times over before p moves by δ; a likely one is stopped early.

    Reference: DPPO, arXiv 2602.04879v3, the binary divergences.
    Departures: none from the binary forms; the top-K ones need the whole distribution and are left out. The paper's
        δ for KL is 0.05. verl truncates ratios at C = 3 by default, and reads δ from its clip ratio (0.2).
    Gradient: dℓ/dlog p = -F·A; none through the ratio, the mask, the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old, new = torch.tensor([[0.5, 0.01]]).log(), torch.tensor([[0.7, 0.1]]).log()
        >>> ones = torch.ones(1, 2)
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=ones, mask=ones.bool())
        >>> DPPO().masked(batch).tolist()  # moved by 0.2 and 0.09, against δ = 0.15
        [[True, False]]
    """

    cuts_gradient = "the ratio and the mask"

    divergence: Literal["tv", "kl"] = "tv"
    """D: total variation or KL(old ‖ current) of the two-way split "this token or another"."""
    threshold: Hyper = 0.15
    """δ ≥ 0: the divergence beyond which a token is stopped; nats for "kl"."""
    ratio_max: Hyper | None = None
    """C > 0: the largest ratio a token is weighted with. None: no limit."""

    def check(self) -> None:
        check_choice(self.name, "divergence", self.divergence, ("tv", "kl"))
        check_range(self.name, "threshold", self.threshold, 0, float("inf"))
        check_range(self.name, "ratio_max", self.ratio_max, 0, float("inf"), open_low=True, optional=True)

    def masked(self, batch: TokenBatch) -> Tensor:
        """1 - M, bool `(..., B, T)`."""
        new, old = batch.log_probs.detach(), batch.old_log_probs
        divergence = binary_total_variation(old, new) if self.divergence == "tv" else binary_kl(old, new)
        away = torch.where(batch.advantages > 0, new > old, new < old)
        return away & (divergence > self.threshold) & (batch.advantages != 0)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {"dppo/masked_fraction": token_average(self.masked(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        ratio = batch.ratio.detach()
        if self.ratio_max is not None:
            ratio = clamp(ratio, 0.0, self.ratio_max)
        return score_loss(ratio.masked_fill(self.masked(batch), 0), batch)
