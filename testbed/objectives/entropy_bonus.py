"""A reward for entropy; wraps any objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, Objective, Wrapper, check_range, objective


@objective("entropy_bonus")
@dataclass(frozen=True, kw_only=True)
class EntropyBonus(Wrapper):
    """Any base objective minus α times the entropy of the policy at every token.

        ℓ = ℓ_base - α·H_new

    The bonus reaches the policy through `batch.entropies`, which must carry their graph to have an effect.

    Reference: Schulman et al., Proximal policy optimization algorithms, arXiv 1707.06347, eq. 9 (α = 0.01).
    Departures: the bonus is reduced like the base's loss. TRL always takes its token mean.
    Gradient: dℓ/dH_new = -α; towards log p that of the base.

    Raises:
        BatchError: when called without `entropies`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> zeros = torch.zeros(1, 1)
        >>> batch = TokenBatch(
        ...     log_probs=zeros,
        ...     old_log_probs=zeros,
        ...     advantages=zeros,
        ...     mask=~zeros.bool(),
        ...     entropies=torch.tensor([[2.0]]),
        ... )
        >>> EntropyBonus(coefficient=0.5)(batch).loss.item()
        -1.0
    """

    needs = ("entropies",)
    exact_on_policy = "the bonus adds the gradient of the entropy"
    acts_without_advantage = "the bonus does not carry A"

    base: Objective | str = "ppo"
    """The objective that is given the bonus: an object, a name or `name(key=value,…)`."""
    coefficient: Hyper = 0.01
    """α ≥ 0: weight of the bonus, loss per nat."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "coefficient", self.coefficient, 0, float("inf"))

    def token_loss(self, batch: TokenBatch) -> Tensor:
        (entropies,) = batch.require("entropies", reason="entropy_bonus rewards them")
        return self.wrapped.token_loss(batch) - self.coefficient * entropies
