"""PRIME-RL: a mask on the change of probability, and a quadratic pull back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Objective, Presets, check_choice, check_range, objective


@objective("prime")
@dataclass(frozen=True, kw_only=True)
class Prime(Objective):
    """Pushes tokens by r·A until their probability has moved by δ, and pays κ for every squared log-ratio.

        ℓ = -M·rA + κz²          F = M·r - 2κz/A

        M = 0 where A > 0, p - q > δ or A < 0, q - p > δ;  1 elsewhere          mask="default"
        M = 0 where |p - q| > δ;  1 elsewhere                                   mask="ipo"

    A masked token still pays κz², the only thing that brings it back. With κ = 0 the gradient is that of `dppo` with
    total variation.

    Reference: prime-rl, `default` and `ipo` loss (δ = 0.2 and 0.1, κ = 10⁻³), as its source stands in November 2026.
    Departures: q is `old_log_probs`; the engine has no pass of its own for the old policy and uses the sampler's. A
        factor on A, 1 in the engine's configurations, is left out. "ipo" is not the preference loss of that name.
    Gradient: dℓ/dlog p = -M·rA + 2κz; none through the mask, to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old, new = torch.tensor([[0.5, 0.01]]).log(), torch.tensor([[0.75, 0.1]]).log()
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.ones(1), mask=new < 0)
        >>> Prime().masked(batch).tolist()  # moved by 0.25 and 0.09, against δ = 0.2
        [[True, False]]
    """

    advantage = "group_centred"
    acts_without_advantage = "the price of the log-ratio does not carry A"
    presets: ClassVar[Presets] = {"ipo": {"mask": "ipo", "threshold": 0.1}}

    mask: Literal["default", "ipo"] = "default"
    """Whether a token is stopped on A's side alone, or on both."""
    threshold: Hyper = 0.2
    """δ ≥ 0: the change of probability beyond which a token is stopped."""
    penalty: Hyper = 1e-3
    """κ ≥ 0: price of a squared log-ratio."""

    def check(self) -> None:
        check_choice(self.name, "mask", self.mask, ("default", "ipo"))
        check_range(self.name, "threshold", self.threshold, 0, float("inf"))
        check_range(self.name, "penalty", self.penalty, 0, float("inf"), open_high=True)

    def masked(self, batch: TokenBatch) -> Tensor:
        """1 - M, bool `(..., B, T)`."""
        moved = batch.log_probs.detach().exp() - batch.old_log_probs.exp()
        if self.mask == "ipo":
            moved = moved.abs()
            return batch.mask & (batch.advantages != 0) & (moved > self.threshold)
        along = moved * batch.advantages.sign()
        return batch.mask & (along > self.threshold)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {"mask/fraction": token_average(self.masked(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        push = (batch.ratio * batch.advantages).masked_fill(self.masked(batch), 0)
        return self.penalty * batch.log_ratio.square() - push
