"""Truncated importance sampling against the sampler's own probabilities; wraps any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from testbed.batch import MAX_LOG_RATIO, TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Wrapper, check_choice, check_order, check_range, clamp, objective


@objective("importance_correction")
@dataclass(frozen=True, kw_only=True)
class ImportanceCorrection(Wrapper):
    """Any base objective, each token weighted by how much more likely the trainer found it than the sampler did.

        w = q / p_sampler                    level="token"
        w = Π_t q_t / p_sampler,t            level="sequence", the same for all tokens of a response
        ℓ = min(max(w, c), C)·ℓ_base         mode="truncate"
        ℓ = 1{c ≤ w ≤ C}·w·ℓ_base            mode="mask"

    Inference engines compute other probabilities than the trainer from the same weights. The old policy q is the
    trainer's; the weight corrects for having sampled from the engine's. It is a constant. IcePop is
    `importance_correction(mode=mask,floor=0.5,cap=5.0)`.

    Reference: Yao et al., Your efficient RL framework secretly brings you off-policy RL training, 2025 (token level,
        truncated at 2). Masking: Ling Team, Every step evolves, arXiv 2510.18855 (IcePop, c = 0.5 and C = 5).
    Departures: the sum of a response's log-weights is clamped to ±20. A penalty wrapped inside is weighted too; TRL
        and verl weight the policy loss alone, which is `reference_kl(base=importance_correction(…))`.
    Gradient: w times that of the base; none to either set of stored probabilities.

    Raises:
        BatchError: when called without `sampler_log_probs`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> zeros = torch.zeros(1, 2)
        >>> batch = TokenBatch(
        ...     log_probs=zeros,
        ...     old_log_probs=zeros,
        ...     advantages=zeros + 1,
        ...     mask=~zeros.bool(),
        ...     sampler_log_probs=torch.tensor([[0.25, 4.0]]).reciprocal().log(),
        ... )
        >>> ImportanceCorrection()(batch).token_loss.tolist()  # weights 1/4 and 4, truncated at 2
        [[-0.25, -2.0]]
    """

    needs = ("sampler_log_probs",)
    exact_on_policy = "the weight differs from 1 wherever sampler and trainer disagree"

    level: Literal["token", "sequence"] = "token"
    """Whether a token has its own weight or that of its response."""
    mode: Literal["truncate", "mask"] = "truncate"
    """What happens to a weight outside [c, C]: it is moved to the nearer end, or its tokens are dropped."""
    cap: Hyper = 2.0
    """C > 0: the largest weight."""
    floor: Hyper = 0.0
    """c in [0, C]: the smallest weight."""

    def check(self) -> None:
        super().check()
        check_choice(self.name, "level", self.level, ("token", "sequence"))
        check_choice(self.name, "mode", self.mode, ("truncate", "mask"))
        check_range(self.name, "cap", self.cap, 0, float("inf"), open_low=True)
        check_range(self.name, "floor", self.floor, 0, float("inf"), open_high=True)
        check_order(self.name, ("floor", self.floor), ("cap", self.cap))

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        raw = self._raw_weights(batch)
        return {
            **self.wrapped.own_metrics(batch),
            "sampler/weight_mean": token_average(self._limited(raw), batch),
            "sampler/limited_fraction": token_average((raw > self.cap) | (raw < self.floor), batch),
        }

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self._limited(self._raw_weights(batch)) * self.wrapped.token_loss(batch)

    def _raw_weights(self, batch: TokenBatch) -> Tensor:
        (sampler,) = batch.require(
            "sampler_log_probs", reason="importance_correction weights by the sampler's probabilities"
        )
        difference = batch.old_log_probs - sampler
        if self.level == "sequence":
            difference = difference.sum(-1, keepdim=True).expand_as(difference)
        return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()

    def _limited(self, weights: Tensor) -> Tensor:
        if self.mode == "mask":
            return weights.masked_fill((weights > self.cap) | (weights < self.floor), 0)
        return clamp(weights, self.floor, self.cap)
