"""Kimi k1.5: mirror descent on whole responses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, Objective, check_range, objective
from testbed.objectives.dro import DRO


@objective("kimi")
@dataclass(frozen=True, kw_only=True)
class Kimi(Objective):
    """Pushes a response by its advantage and pays for the square of its log-ratio, summed over the response.

        L = mean_i [ -A_i Σ_t log p_it + (τ/2)·(Σ_t z_it)² ]          F_it = 1 - τ·(Σ_s z_is)/A_i

    The engines that name this loss price Σ_t z_it² instead, without the cross terms; see `dro`.

    Reference: Kimi team, Kimi k1.5, arXiv 2501.12599, eq. 3 as ROLL restates it (τ = 0.1).
    Departures: read in ROLL's restatement, not in the paper.
    Gradient: dℓ/dlog p_it = -A_i + τ Σ_s z_is; none to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new, old = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-2.0, -3.0]])  # the log-ratios add up to 3
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.zeros(1), mask=new < 0)
        >>> Kimi(tau=1.0)(batch).loss.item()  # 3²/2
        4.5
    """

    acts_without_advantage = "the price of the log-ratio does not carry A"
    advantage = "group_centred"

    tau: Hyper = 0.1
    """τ ≥ 0: price of a response's squared log-ratio."""
    reduction: str = "seq_mean_token_sum"

    def check(self) -> None:
        check_range(self.name, "tau", self.tau, 0, float("inf"), open_high=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return DRO(beta=self.tau, level="sequence").token_loss(batch)
