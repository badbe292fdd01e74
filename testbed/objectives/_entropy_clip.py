"""What Clip_B and Clip_V share: PPO without the punished tokens whose update would cost most entropy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Presets, check_choice
from testbed.objectives.ppo import PPO

__all__ = ["EntropyClip", "deviation", "entropy_slope", "some_spread"]


@dataclass(frozen=True, kw_only=True)
class EntropyClip(PPO):
    """PPO's loss on the tokens that a rule about entropy keeps; a sub-class states the rule."""

    needs: ClassVar[tuple[str, ...]] = ("old_entropies",)
    needs_whole_batch = True
    exact_on_policy = "tokens are left out whatever their ratio"
    presets: ClassVar[Presets] = {"trinity": {"denominator": "kept"}}

    denominator: Literal["all", "kept"] = "all"
    """Whether dropped tokens stay in the mean's divisor."""

    def check(self) -> None:
        super().check()
        check_choice(self.name, "denominator", self.denominator, ("all", "kept"))

    @abstractmethod
    def dropped(self, batch: TokenBatch) -> Tensor:
        """The tokens left out, bool `(..., B, T)`."""

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {"mask/fraction": token_average(self.dropped(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        dropped = self.dropped(batch)
        loss = super().token_loss(batch).masked_fill(dropped, 0)
        if self.denominator == "all":
            return loss
        kept = (batch.mask & ~dropped).sum((-2, -1), keepdim=True).clamp(min=1)
        return loss * batch.mask.sum((-2, -1), keepdim=True).to(loss.dtype) / kept


def entropy_slope(batch: TokenBatch) -> Tensor:
    """S = q·(H_old + log q), `(..., B, T)`: raising the token's logit by ε lowers entropy by ε·S, to first order."""
    (entropies,) = batch.require("old_entropies", reason="a token's effect on entropy is measured against it")
    return batch.old_log_probs.exp() * (entropies + batch.old_log_probs)


def deviation(values: Tensor, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Values minus their mean, and their standard deviation, over all response tokens; `(..., B, T)`, `(..., 1, 1)`."""
    centred = values - token_average(values, batch)[..., None, None]
    return centred, token_average(centred.square(), batch)[..., None, None].sqrt()


def some_spread(spread: Tensor) -> Tensor:
    """Whether a standard deviation is one at all: a rounding error is not."""
    return spread > 1e-12 if spread.dtype == torch.float64 else spread > torch.finfo(spread.dtype).eps
