"""A reward for entropy; wraps any objective."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, Objective, Wrapper, check_range, objective
from testbed.reductions import reductions


@objective("entropy_bonus")
@dataclass(frozen=True, kw_only=True)
class EntropyBonus(Wrapper):
    """Any base objective minus α times the entropy of the policy at every token.

        ℓ = ℓ_base - α·H_new                              entropy_reduction empty: reduced like the base's loss
        ℓ = ℓ_base - α·(c_own/c_base)·H_new               otherwise: L = L_base - α·mean_own H_new

    c is what a mean multiplies a token with. α means another strength under each of them. With B responses of n tokens
    and N tokens in all, L falls by α times

        token_mean                 mean H over tokens
        seq_mean_token_mean        mean over responses of their mean H
        seq_mean_token_sum         n times as much
        seq_mean_token_sum_norm    n/L_max times as much
        seq_sum_token_mean         B times as much

    so that an α tuned with `grpo` as the base is n times too strong with `bapo`. `entropy_reduction=token_mean` gives α
    the same meaning whatever the base.

    The bonus reaches the policy through `batch.entropies`, which must carry their graph to have an effect.

    Reference: Schulman et al., Proximal policy optimization algorithms, arXiv 1707.06347, eq. 9 (α = 0.01).
    Departures: the bonus is reduced like the base's loss, as verl's. TRL always takes a mean over tokens:
        `entropy_reduction=token_mean`.
    Gradient: dℓ/dH_new = -α, or -α·c_own/c_base; towards log p that of the base.

    Raises:
        UnknownNameError: at construction, when `entropy_reduction` is not a registered name.
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
    entropy_reduction: str = ""
    """How the bonus becomes one number, a name in `testbed.reductions`. Empty: as the loss of the base."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "coefficient", self.coefficient, 0, float("inf"), open_high=True)
        if self.entropy_reduction != "":
            reductions[self.entropy_reduction]

    def token_loss(self, batch: TokenBatch) -> Tensor:
        (entropies,) = batch.require("entropies", reason="entropy_bonus rewards them")
        bonus = self.coefficient * entropies
        if self.entropy_reduction not in ("", self.reduction):
            own, base = (self.reduction_weights(batch, name) for name in (self.entropy_reduction, self.reduction))
            bonus = bonus * (own / base.masked_fill(~batch.mask, 1))
        return self.wrapped.token_loss(batch) - bonus
