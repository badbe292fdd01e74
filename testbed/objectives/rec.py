"""REC: REINFORCE with the clip as a mask, and with or without an importance weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.masking import clamp_log_ratio
from testbed.objectives._base import (
    Hyper,
    Objective,
    check_choice,
    check_range,
    choose,
    objective,
    score_loss,
)

_CLIPS = ("one_side", "two_side", "ring", "gspo_one_side", "none")
_WEIGHTS = ("none", "ratio", "sequence", "advantage")


@objective("rec")
@dataclass(frozen=True, kw_only=True)
class REC(Objective):
    """Pushes the kept tokens by a constant weight times their advantage: which are kept and the weight are settings.

        ℓ = -1{kept}·sg[w]·A·log p + c·z²          F = 1{kept}·w - 2cz/A

        kept   one_side        A > 0: r ≤ 1+ε_high;   A < 0: r ≥ 1-ε_low
               two_side        1-ε_low ≤ r ≤ 1+ε_high
               ring            two_side, or A > 0 and r ≤ 1-ε'_low, or A < 0 and r ≥ 1+ε'_high
               gspo_one_side   one_side with the response's geometric mean ratio s_i
               none            all
        w      none 1;   ratio r;   sequence s_i;   advantage e^A

    one_side with the ratio has PPO's gradient; two_side is the band of IcePop around r. The ring lets tokens back in
    that are far out on the wrong side, where the most is to be recovered.

    Reference: Group-relative REINFORCE is secretly an off-policy algorithm, arXiv 2509.24203, as Trinity-RFT 0.6.0 has
        it (`rec_policy_loss`).
    Departures: 1. Trinity's defaults for the ring are 0.6 and 2 in one place, and 0.4 and 0.4, as here, in another. 2.
        Its forward-KL term, -c·log p, is left out. 3. gspo_one_side goes with `reduction="seq_mean_token_mean"`.
    Gradient: dℓ/dlog p = -F·A; none through the weight and the choice, to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.full((1, 3), -2.0)
        >>> new = old + torch.tensor([[0.5, 1.1, 1.5]]).log()
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.ones(1), mask=new < 0)
        >>> for clip in ("one_side", "two_side", "ring", "none"):
        ...     REC(clip=clip).kept(batch).tolist()
        [[True, True, False]]
        [[False, True, False]]
        [[True, True, False]]
        [[True, True, True]]
    """

    advantage = "group_centred"

    clip: Literal["one_side", "two_side", "ring", "gspo_one_side", "none"] = "one_side"
    """Which tokens are kept."""
    weight: Literal["none", "ratio", "sequence", "advantage"] = "none"
    """What a kept token is weighted with."""
    clip_low: Hyper = 0.2
    """ε_low ≥ 0: the ratio may fall to 1 - ε_low."""
    clip_high: Hyper = 0.2
    """ε_high ≥ 0: the ratio may rise to 1 + ε_high."""
    ring_low: Hyper = 0.4
    """ε'_low ≥ 0: for A > 0 the ring keeps ratios up to 1 - ε'_low as well."""
    ring_high: Hyper = 0.4
    """ε'_high ≥ 0: for A < 0 the ring keeps ratios from 1 + ε'_high on as well."""
    penalty: Hyper = 0.0
    """c ≥ 0: price of a squared log-ratio, kept or not."""

    def __post_init__(self) -> None:
        declared = {
            "cuts_gradient": "the weight" if self.weight in ("ratio", "sequence") else "",
            "exact_on_policy": "tokens are weighted by e^A whatever their ratio" if self.weight == "advantage" else "",
            "acts_without_advantage": "the price of the log-ratio does not carry A" if self._has_penalty else "",
        }
        for name, reason in declared.items():
            object.__setattr__(self, name, reason)
        super().__post_init__()

    @property
    def _has_penalty(self) -> bool:
        return isinstance(self.penalty, Tensor) or self.penalty != 0

    def check(self) -> None:
        infinity = float("inf")
        check_choice(self.name, "clip", self.clip, _CLIPS)
        check_choice(self.name, "weight", self.weight, _WEIGHTS)
        for name in ("clip_low", "clip_high", "ring_low", "ring_high"):
            check_range(self.name, name, getattr(self, name), 0, infinity)
        check_range(self.name, "penalty", self.penalty, 0, infinity, open_high=True)

    def kept(self, batch: TokenBatch) -> Tensor:
        """The tokens that are pushed, bool `(..., B, T)`."""
        if self.clip == "none":
            return batch.mask
        ratio, advantages = batch.ratio.detach(), batch.advantages
        if self.clip == "gspo_one_side":
            ratio = clamp_log_ratio(batch.sequence_mean(batch.unclamped_log_ratio.detach())).exp()
        positive, negative = advantages > 0, advantages < 0
        below, above = ratio < 1 - self.clip_low, ratio > 1 + self.clip_high
        far = (positive & (ratio <= 1 - self.ring_low)) | (negative & (ratio >= 1 + self.ring_high))
        if self.clip in ("one_side", "gspo_one_side"):
            below, above = below & negative, above & positive
        return batch.mask & ((~below & ~above) | (far & (self.clip == "ring")))

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {"mask/fraction": 1 - token_average(self.kept(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        loss = score_loss(self._weights(batch) * choose(self.kept(batch), 1.0, 0.0, batch.log_probs), batch)
        if self._has_penalty:
            loss = loss + self.penalty * batch.log_ratio.square()
        return loss

    def _weights(self, batch: TokenBatch) -> Tensor:
        if self.weight == "ratio":
            return batch.ratio.detach()
        if self.weight == "sequence":
            return (
                clamp_log_ratio(batch.sequence_mean(batch.unclamped_log_ratio.detach()))
                .exp()
                .expand_as(batch.log_probs)
            )
        if self.weight == "advantage":
            return batch.advantages.exp()
        return torch.ones_like(batch.log_probs)
