"""ERC: an update counts only where the token's entropy has stayed in a band; wraps any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval, token_average
from testbed.errors import ConfigError
from testbed.objectives._base import Hyper, Objective, check_range, make_objective, objective

ENTROPY_FLOOR = 1e-8
"""Added to both entropies of the ratio, in nats, as the released code does."""


@objective("erc")
@dataclass(frozen=True, kw_only=True)
class ERC(Objective):
    """Any base objective, minus the tokens at whose position the policy's entropy changed by more than a few percent.

        ρ = (H_new + 1e-8)/(H_old + 1e-8),   ℓ = 1{1-β_low < ρ < 1+β_high} · ℓ_base

        F = F_base inside the band, 0 outside, whatever the sign of A

    The band is open: a ratio exactly on it is dropped. Where both entropies are below 1e-8 the token is kept. Dropped
    tokens stay in the denominators of the reduction. H_new decides by comparison only; nothing flows through it.

    Reference: Su et al., Entropy ratio clipping, arXiv 2512.05591, and the authors' code.
    Departures: 1. a dropped token has the value 0, as in the paper's indicator; the released code keeps its value and
        cuts its gradient, so reported losses differ and gradients do not. 2. The released scripts also dual-clip at
        10 and add 0.1·NLL on correct responses: `base="dapo(dual_clip=10.0)"` gives the former.
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

    base: Objective | str = "dapo"
    """The objective whose tokens are kept or dropped: an object, a name or `name(key=value,…)`."""
    beta_low: Hyper = 0.05
    """β_low in [0, 1): the entropy may fall to 1 - β_low times its old value."""
    beta_high: Hyper = 0.05
    """β_high ≥ 0: the entropy may rise to 1 + β_high times its old value."""
    reduction: str = ""
    """Empty: the reduction of the base."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", make_objective(self.base))
        if not self.reduction:
            object.__setattr__(self, "reduction", self.wrapped.reduction)
        super().__post_init__()

    @property
    def wrapped(self) -> Objective:
        """The base, as the object it was resolved to."""
        assert isinstance(self.base, Objective)
        return self.base

    def hyper_parameters(self) -> dict[str, Any]:
        changed = super().hyper_parameters()
        if self.reduction == self.wrapped.reduction:
            del changed["reduction"]
        if self.wrapped == make_objective("dapo"):
            del changed["base"]
        return changed

    def check(self) -> None:
        check_range(self.name, "beta_low", self.beta_low, 0, 1, open_high=True)
        check_range(self.name, "beta_high", self.beta_high, 0, float("inf"))
        if isinstance(self.base, ERC):
            raise ConfigError("erc: base is itself erc; give the objective inside it, such as base='dapo'")

    def kept(self, batch: TokenBatch) -> Tensor:
        """The indicator of the band, bool `(..., B, T)`."""
        batch.require(*self.needs, reason="erc compares the entropy at each token with that at sampling time")
        assert batch.entropies is not None
        assert batch.old_entropies is not None
        new, old = batch.entropies.detach(), batch.old_entropies
        ratio = (new + ENTROPY_FLOOR) / (old + ENTROPY_FLOOR)
        inside = (ratio > 1 - self.beta_low) & (ratio < 1 + self.beta_high)
        return inside | ((new < ENTROPY_FLOOR) & (old < ENTROPY_FLOOR))

    def clip_interval(self, batch: TokenBatch) -> ClipInterval | None:
        return self.wrapped.clip_interval(batch)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        kept = self.kept(batch)
        old = batch.old_entropies
        assert old is not None
        masked, staying = batch.mask & ~kept, batch.mask & kept
        return {
            **self.wrapped.own_metrics(batch),
            "erc/masked_fraction": token_average(masked, batch),
            "erc/masked_entropy": (old * masked).sum((-2, -1)) / masked.sum((-2, -1)),
            "erc/kept_entropy": (old * staying).sum((-2, -1)) / staying.sum((-2, -1)),
        }

    def max_length_or(self, padded_width: int) -> float:
        return self.wrapped.max_length_or(padded_width)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self.wrapped.token_loss(batch).where(self.kept(batch), 0)
