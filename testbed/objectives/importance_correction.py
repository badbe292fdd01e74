"""Truncated importance sampling against the sampler's own probabilities; wraps any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.divergences import binary_kl
from testbed.errors import ConfigError
from testbed.masking import clamp_log_ratio
from testbed.objectives._base import Hyper, Presets, Wrapper, check_choice, check_order, check_range, clamp, objective


@objective("importance_correction")
@dataclass(frozen=True, kw_only=True)
class ImportanceCorrection(Wrapper):
    """Any base objective, each token weighted by how much more likely the trainer found it than the sampler did.

        w = q / p_sampler                    level="token"
        w = Π_t q_t / p_sampler,t            level="sequence", the same for all tokens of a response
        w = (Π_t q_t / p_sampler,t)^{1/n}    level="geometric", likewise
        ℓ = min(max(w, c), C)·ℓ_base         mode="truncate"
        ℓ = 1{c ≤ w ≤ C}·x·ℓ_base            mode="mask", x = w, the token's own ratio, or 1 by `weight`
        ℓ = 0 where KL₂ > φ                  with `kl_max`, the KL of "this token or another" between the two

    Inference engines compute other probabilities than the trainer from the same weights. The old policy q is the
    trainer's; the weight corrects for having sampled from the engine's. It is a constant. `preset="icepop"` masks
    ratios outside 0.5 to 5, whatever the probability. `preset="kpop"` masks tokens whose KL₂ exceeds 0.1 in either
    direction, which lets an unlikely token move far and a likely one hardly. `preset="geometric"` masks responses whose
    ratio has a geometric mean outside 0.999 to 1.002, which a drift that is small everywhere does not pass.

    Reference: Yao et al., Your efficient RL framework secretly brings you off-policy RL training, 2025 (token level,
        truncated at 2). Masking: Ling Team, Every step evolves, arXiv 2510.18855 (IcePop, c = 0.5 and C = 5). KPop:
        φ = 0.1 as a pull request of prime-rl cites it, `binary_kl` in AReaL 1.0. Geometric masks: verl 0.9's `geo_rs`
        (weight 1), NeMo-RL (the token's own), AReaL (the mean).
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

    presets: ClassVar[Presets] = {
        "icepop": {"mode": "mask", "floor": 0.5, "cap": 5.0},
        "kpop": {"mode": "mask", "cap": float("inf"), "kl_max": 0.1},
        "geometric": {"mode": "mask", "level": "geometric", "floor": 0.999, "cap": 1.002, "weight": "token"},
    }

    level: Literal["token", "sequence", "geometric"] = "token"
    """Whether a token has its own weight, or that of its response: a product, or its geometric mean."""
    mode: Literal["truncate", "mask"] = "truncate"
    """What happens to a weight outside [c, C]: it is moved to the nearer end, or its tokens are dropped."""
    cap: Hyper = 2.0
    """C > 0: the largest weight."""
    floor: Hyper = 0.0
    """c in [0, C]: the smallest weight."""
    weight: Literal["level", "token", "one"] = "level"
    """What a token that the mask leaves is weighted with: w, its own ratio whatever the level, or nothing."""
    kl_max: Hyper | None = None
    """φ ≥ 0: tokens whose KL₂ exceeds it are dropped, nats. None: no such mask."""
    kl_direction: Literal["both", "sampler"] = "both"
    """KL₂: the larger of both directions, or KL(sampler ‖ old) alone."""

    def check(self) -> None:
        super().check()
        check_choice(self.name, "level", self.level, ("token", "sequence", "geometric"))
        check_choice(self.name, "mode", self.mode, ("truncate", "mask"))
        check_choice(self.name, "weight", self.weight, ("level", "token", "one"))
        check_choice(self.name, "kl_direction", self.kl_direction, ("both", "sampler"))
        check_range(self.name, "kl_max", self.kl_max, 0, float("inf"), optional=True)
        if self.mode == "truncate" and self.weight != "level":
            raise ConfigError(
                f"{self.name}: weight is {self.weight!r} with mode='truncate', which changes the weight itself; "
                "expected weight='level', or mode='mask'"
            )
        check_range(self.name, "cap", self.cap, 0, float("inf"), open_low=True)
        check_range(self.name, "floor", self.floor, 0, float("inf"), open_high=True)
        check_order(self.name, ("floor", self.floor), ("cap", self.cap))

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        raw = self._of_level(self._log_weights(batch), batch)
        return {
            **self.wrapped.own_metrics(batch),
            "sampler/weight_mean": token_average(self.weights(batch), batch),
            "sampler/limited_fraction": token_average(self._outside(raw) | self._diverged(batch), batch),
        }

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self.weights(batch) * self.wrapped.token_loss(batch)

    def weights(self, batch: TokenBatch) -> Tensor:
        """What the loss of every token is multiplied with, `(..., B, T)`, 0 for those dropped."""
        differences = self._log_weights(batch)
        raw = self._of_level(differences, batch)
        if self.mode == "truncate":
            weights = clamp(raw, self.floor, self.cap)
        else:
            own, one = clamp_log_ratio(differences).exp(), torch.ones_like(raw)
            weights = {"level": raw, "token": own, "one": one}[self.weight].masked_fill(self._outside(raw), 0)
        return weights.masked_fill(self._diverged(batch), 0)

    def _log_weights(self, batch: TokenBatch) -> Tensor:
        (sampler,) = batch.require(
            "sampler_log_probs", reason="importance_correction weights by the sampler's probabilities"
        )
        return batch.old_log_probs - sampler

    def _of_level(self, differences: Tensor, batch: TokenBatch) -> Tensor:
        if self.level == "sequence":
            differences = differences.sum(-1, keepdim=True).expand_as(differences)
        elif self.level == "geometric":
            differences = batch.sequence_mean(differences).expand_as(differences)
        return clamp_log_ratio(differences).exp()

    def _outside(self, raw: Tensor) -> Tensor:
        return (raw > self.cap) | (raw < self.floor)

    def _diverged(self, batch: TokenBatch) -> Tensor:
        if self.kl_max is None:
            return torch.zeros_like(batch.mask)
        (sampler,) = batch.require("sampler_log_probs", reason="importance_correction compares old policy and sampler")
        divergence = binary_kl(sampler, batch.old_log_probs)
        if self.kl_direction == "both":
            divergence = torch.maximum(divergence, binary_kl(batch.old_log_probs, sampler))
        # Written so that an infinite divergence, of a token that one side calls certain, is beyond any limit.
        return batch.mask & ~(divergence <= self.kl_max)
