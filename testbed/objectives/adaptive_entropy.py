"""A reward for entropy whose coefficient follows the entropy; wraps any objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Objective, Wrapper, check_order, check_range, objective, tensor_like
from testbed.objectives.entropy_bonus import EntropyBonus


@objective("adaptive_entropy")
@dataclass(frozen=True, kw_only=True)
class AdaptiveEntropy(Wrapper):
    """Any base objective minus α_k times the mean entropy; α_k acts below a target entropy and grows there.

        α_k = c_k·1{e_{k-1} ≤ e*},   L = L_base - α_k·(1/N) Σ_t H_new
        c_{k+1} = min(c_k + Δ, c_max) where e_k ≤ e*,   max(c_k - Δ, c_min) elsewhere

    e_k is the mean entropy over the response tokens of optimiser step k, before its update; the first step has no
    bonus. The object is frozen: c_k and e_{k-1} are fields, and `next_step` gives the object of the next step. A loop
    that does not ask for it keeps the coefficient it was given.

    Reference: He et al., Skywork open reasoner 1, arXiv 2505.22312, as TRL 1.16 has it (`use_adaptive_entropy`).
    Departures: none from TRL. The mean of the bonus is over tokens whatever the mean of the base.
    Gradient: dL/dH_new = -α_k/N; towards log p that of the base.

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
        ...     entropies=torch.tensor([[0.1]]),
        ... )
        >>> second = AdaptiveEntropy(target=0.2, step=0.5).next_step(batch)
        >>> second(batch).loss.item()  # -0.5·0.1
        -0.05000000074505806
    """

    needs = ("entropies",)
    adapts = "its coefficient follows the entropy"

    base: Objective | str = "ppo"
    """The objective that is given the bonus: an object, a name or `name(key=value,…)`."""
    target: Hyper = 0.2
    """e* ≥ 0, nats: the entropy below which there is a bonus."""
    step: Hyper = 0.005
    """Δ ≥ 0: by how much the coefficient changes per optimiser step."""
    lowest: Hyper = 0.0
    """c_min ≥ 0."""
    highest: Hyper = 1.0
    """c_max ≥ c_min."""
    coefficient: Hyper = 0.0
    """c_k ≥ 0: at the start c_0, 0 in TRL; loss per nat."""
    last_entropy: Hyper | None = None
    """e_{k-1} ≥ 0, nats: the mean entropy of the step before. None: there was none, and so no bonus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.applied() > 0).any()):
            for reason in ("exact_on_policy", "acts_without_advantage"):
                object.__setattr__(self, reason, getattr(self, reason) or "the bonus does not carry A")

    def check(self) -> None:
        super().check()
        for name in ("target", "step", "lowest", "highest", "coefficient"):
            check_range(self.name, name, getattr(self, name), 0, float("inf"), open_high=True)
        check_range(self.name, "last_entropy", self.last_entropy, 0, float("inf"), open_high=True, optional=True)
        check_order(self.name, ("lowest", self.lowest), ("highest", self.highest))

    def applied(self) -> Tensor:
        """α_k, of the common shape of the hyper-parameters."""
        before = float("inf") if self.last_entropy is None else self.last_entropy
        numbers = (before, self.target, self.coefficient, self.step, self.lowest, self.highest)
        known = [torch.as_tensor(number, dtype=torch.float64) for number in numbers]
        shape = torch.broadcast_shapes(*(number.shape for number in known))  # type: ignore[no-untyped-call]
        last, target, coefficient = (number.expand(shape) for number in known[:3])
        return torch.where(last <= target, coefficient, 0.0)

    def next_step(self, batch: TokenBatch) -> AdaptiveEntropy:
        """The objective of the next optimiser step, after one on `batch`, the whole of it."""
        (entropies,) = batch.require("entropies", reason="adaptive_entropy follows them")
        entropy = token_average(entropies.detach(), batch)[..., None, None]
        coefficient, change, lowest, highest, target = (
            tensor_like(getattr(self, name), entropy) for name in ("coefficient", "step", "lowest", "highest", "target")
        )
        moved = torch.where(
            entropy <= target,
            torch.minimum(coefficient + change, highest),
            torch.maximum(coefficient - change, lowest),
        )
        return dataclasses.replace(self, base=self.wrapped.next_step(batch), coefficient=moved, last_entropy=entropy)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        applied = self.applied().to(batch.log_probs)
        applied = applied.squeeze(-1).squeeze(-1) if applied.dim() else applied
        return {
            **self.wrapped.own_metrics(batch),
            "entropy/coefficient": applied.expand(batch.log_probs.shape[:-2]),
        }

    def token_loss(self, batch: TokenBatch) -> Tensor:
        applied = self.applied().to(batch.log_probs)
        bonus = EntropyBonus(
            base=self.wrapped, coefficient=applied, entropy_reduction="token_mean", reduction=self.reduction
        )
        return bonus.token_loss(batch)
