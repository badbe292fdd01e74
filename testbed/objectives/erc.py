"""ERC: an update counts only where the token's entropy has stayed in a band; wraps any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Presets, Wrapper, check_flag, check_range, objective

ENTROPY_FLOOR = 1e-8
"""Added to both entropies of the ratio, in nats, as the released code does."""


@objective("erc")
@dataclass(frozen=True, kw_only=True)
class ERC(Wrapper):
    """Any base objective, minus the tokens at whose position the policy's entropy changed by more than a few percent.

        ρ = (H_new + 1e-8)/(H_old + 1e-8),   ℓ = 1{1-β_low < ρ < 1+β_high} · ℓ_base

        F = F_base inside the band, 0 outside, whatever the sign of A

    The band is open: a ratio exactly on it is dropped. Where both entropies are below 1e-8 the token is kept. Dropped
    tokens stay in the denominators of the reduction. H_new decides by comparison only; nothing flows through it.

    Reference: Su et al., Entropy ratio clipping, arXiv 2512.05591, and the authors' code.
    Departures: none from the paper. `preset="released"` is the authors' code: a dropped token keeps its value and loses
        only its gradient, so reported losses differ and gradients do not, and DAPO dual-clips at 10. Their scripts
        also add 0.1·NLL on correct responses; wrap with `positive_nll` for it.
    Gradient: that of the base objective where kept; none to either entropy.

    Raises:
        BatchError: when called without `entropies` and `old_entropies`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
        >>> batch = TokenBatch(
        ...     log_probs=zeros,
        ...     old_log_probs=zeros,
        ...     advantages=ones,
        ...     mask=ones.bool(),
        ...     entropies=torch.tensor([[1.04, 1.06]]),
        ...     old_entropies=ones,
        ... )
        >>> ERC()(batch).token_loss.tolist()  # 1.06 is outside the band of 0.05
        [[-1.0, 0.0]]
    """

    needs = ("entropies", "old_entropies")
    presets: ClassVar[Presets] = {"released": {"base": "dapo(dual_clip=10.0)", "keep_value": True}}

    beta_low: Hyper = 0.05
    """β_low in [0, 1): the entropy may fall to 1 - β_low times its old value."""
    beta_high: Hyper = 0.05
    """β_high ≥ 0: the entropy may rise to 1 + β_high times its old value."""
    keep_value: bool = False
    """True: a dropped token keeps its value and loses only its gradient, as in the released code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_value:
            object.__setattr__(self, "cuts_gradient", self.cuts_gradient or "the value of dropped tokens")

    def check(self) -> None:
        super().check()
        check_flag(self.name, "keep_value", self.keep_value)
        check_range(self.name, "beta_low", self.beta_low, 0, 1, open_high=True)
        check_range(self.name, "beta_high", self.beta_high, 0, float("inf"))

    def kept(self, batch: TokenBatch) -> Tensor:
        """The indicator of the band, bool `(..., B, T)`."""
        new, old = self._entropies(batch)
        ratio = (new + ENTROPY_FLOOR) / (old + ENTROPY_FLOOR)
        inside = (ratio > 1 - self.beta_low) & (ratio < 1 + self.beta_high)
        return inside | ((new < ENTROPY_FLOOR) & (old < ENTROPY_FLOOR))

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        kept, (_, old) = self.kept(batch), self._entropies(batch)
        masked, staying = batch.mask & ~kept, batch.mask & kept
        return {
            **self.wrapped.own_metrics(batch),
            "erc/masked_fraction": token_average(masked, batch),
            "erc/masked_entropy": (old * masked).sum((-2, -1)) / masked.sum((-2, -1)),
            "erc/kept_entropy": (old * staying).sum((-2, -1)) / staying.sum((-2, -1)),
        }

    def token_loss(self, batch: TokenBatch) -> Tensor:
        loss = self.wrapped.token_loss(batch)
        return loss.where(self.kept(batch), loss.detach() if self.keep_value else 0)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor | None:
        gradient = self.wrapped.log_prob_gradient(batch) if self.wrapped.has_closed_form else None
        return None if gradient is None else gradient.where(self.kept(batch), 0)

    def _entropies(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        new, old = batch.require(
            "entropies", "old_entropies", reason="erc compares the entropy at each token with that at sampling time"
        )
        return new.detach(), old
