"""OPMD: the plain score, damped by one plus the temperature of a mirror-descent step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, Objective, check_range, objective


@objective("opmd")
@dataclass(frozen=True, kw_only=True)
class OPMD(Objective):
    """Pushes every token by its advantage, divided by 1 + τ; there is no ratio and no clip.

        ℓ = -A·log p / (1 + τ)          F = 1/(1 + τ)

    With the group's mean as baseline this is REINFORCE at 1/(1 + τ) of the step, and under Adam the factor cancels. The
    algorithm differs from it only through the baseline τ·log mean e^{R/τ}, the estimator `log_mean_exp`.

    Reference: Trinity-RFT 0.6.0, `opmd_policy_loss` and `opmd_advantage` (τ = 1).
    Departures: none.
    Gradient: dℓ/dlog p = -A/(1 + τ); none to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-1.0, -3.0]])
        >>> batch = TokenBatch(log_probs=new, old_log_probs=new, advantages=torch.ones(1), mask=new < 0)
        >>> OPMD()(batch).loss.item()  # half the mean of 1 and 3
        1.0
    """

    advantage = "group_centred"
    exact_on_policy = "the step is divided by 1 + τ"

    tau: Hyper = 1.0
    """τ ≥ 0: the temperature of the step."""

    def check(self) -> None:
        check_range(self.name, "tau", self.tau, 0, float("inf"), open_high=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return -batch.advantages * batch.log_probs / (1 + self.tau)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor:
        return batch.opposite_advantages / (1 + self.tau)
