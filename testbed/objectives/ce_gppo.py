"""CE-GPPO: the gradient kept at each bound has its own coefficient, to steer entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from testbed.objectives._base import (
    Hyper,
    Presets,
    check_range,
    objective,
)
from testbed.objectives.gppo import GPPO


@objective("ce_gppo")
@dataclass(frozen=True, kw_only=True)
class CEGPPO(GPPO):
    """GPPO with the gradient of clipped tokens scaled by β₁ below and β₂ above the interval.

        ℓ = -β₁·((1-ε_low)/sg[r])·r·A     where r < 1-ε_low and A < 0
            -β₂·((1+ε_high)/sg[r])·r·A    where r > 1+ε_high and A > 0
            -r·A                          otherwise

        F =  β₁(1-ε_low)  |  β₂(1+ε_high)  |  r

    β₁ restores negative tokens that have become unlikely, which lower entropy; β₂ restores positive tokens that
    outran the bound, which raise it. β₁ = β₂ = 1 is GPPO; β₁ = β₂ = 0 has PPO's gradient, but not its value.

    Reference: Su et al., CE-GPPO, arXiv 2509.20712v5, eq. 8-10.
    Departures: 1. as GPPO's 1 and 3. 2. Section 3.2 of the paper assigns β₁ and β₂ the other way round than its
        equations; the equations are implemented. `preset="released"` is the script for the 7B model: a dual clip of 10
        (the 1.5B script has β₁ = 0.5, the function's own default is 0.25). The scripts also add 0.1·NLL on correct
        responses; wrap with `positive_nll` for it.
    Gradient: dℓ/dlog p = -F·A; none through sg[·], the old policy or the advantages. Beyond |z| = 20 it is zero.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-1.0]], requires_grad=True)  # ratio 0.37, below 0.8
        >>> one = torch.ones(1, 1)
        >>> batch = TokenBatch(log_probs=new, old_log_probs=0 * one, advantages=-one, mask=one.bool())
        >>> CEGPPO(beta1=0.5)(batch).loss.backward()
        >>> round(new.grad.item(), 6)  # 0.5 · 0.8
        0.4
    """

    presets: ClassVar[Presets] = {"released": {"dual_clip": 10.0}}

    beta1: Hyper = 0.75
    """β₁ ≥ 0: scales the gradient of tokens with A < 0 below the interval."""
    beta2: Hyper = 1.0
    """β₂ ≥ 0: scales the gradient of tokens with A > 0 above the interval."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "beta1", self.beta1, 0, float("inf"), open_high=True)
        check_range(self.name, "beta2", self.beta2, 0, float("inf"), open_high=True)

    def kept_shares(self) -> tuple[Hyper, Hyper]:
        return self.beta1, self.beta2
