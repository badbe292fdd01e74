"""DRO: no clip at all, a quadratic price for every log-ratio instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, Objective, check_choice, check_range, objective


@objective("dro")
@dataclass(frozen=True, kw_only=True)
class DRO(Objective):
    """Pushes every token by its advantage and pays for the square of the log-ratio.

        ℓ = -A·log p + (β/2)·z²                                    level="token"
        Σ_t ℓ_it = -A_i Σ_t log p_it + (β/2)·(Σ_t z_it)²           level="sequence"

        F = 1 - βz/A            F_it = 1 - β·(Σ_s z_is)/A_i

    The push ends where z = A/β: at β = 0.1 and A = 1 that is a ratio of e^10, a soft brake and not a trust region. At
    the level of the sequence the price is divided evenly among the tokens of the response.

    Reference: verl 0.9.1, `compute_policy_loss_dro`, ROLL and Tinker (token level). Kimi team, Kimi k1.5, arXiv
        2501.12599, eq. 3 as ROLL restates it (sequence level), registered as `kimi`. The name is that of Richemond et
        al., arXiv 2405.19107, who fit a value function as well.
    Departures: β has no default in verl; 0.1 is ROLL's. Tinker sums over tokens.
    Gradient: dℓ/dlog p = -A + βz, and -A + β Σ_s z at the level of the sequence; none to the old policy.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-1.0, -1.0]])
        >>> old = torch.tensor([[-2.0, -3.0]])  # log-ratios 1 and 2
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.zeros(1), mask=new < 0)
        >>> DRO(beta=1.0)(batch).token_loss.tolist()
        [[0.5, 2.0]]
        >>> DRO(beta=1.0, level="sequence")(batch).token_loss.tolist()  # 3²/2, shared by two tokens
        [[2.25, 2.25]]
    """

    acts_without_advantage = "the price of the log-ratio does not carry A"

    beta: Hyper = 0.1
    """β ≥ 0: price of a squared log-ratio."""
    level: Literal["token", "sequence"] = "token"
    """Whether a token's own log-ratio is priced or the sum over its response."""
    reduction: str = ""
    """Empty: `token_mean` at the level of the token, `seq_mean_token_sum` at that of the sequence."""

    def __post_init__(self) -> None:
        if self.reduction == "":
            object.__setattr__(self, "reduction", self._usual_reduction())
        super().__post_init__()

    def check(self) -> None:
        check_range(self.name, "beta", self.beta, 0, float("inf"), open_high=True)
        check_choice(self.name, "level", self.level, ("token", "sequence"))

    def _usual_reduction(self) -> str:
        return "seq_mean_token_sum" if self.level == "sequence" else "token_mean"

    def hyper_parameters(self) -> dict[str, object]:
        changed = super().hyper_parameters()
        if self.reduction == self._usual_reduction():
            changed.pop("reduction", None)
        return changed

    def token_loss(self, batch: TokenBatch) -> Tensor:
        price = batch.log_ratio.square()
        if self.level == "sequence":
            total = batch.unclamped_log_ratio.sum(-1, keepdim=True)
            price = batch.at_response_tokens(total.square() / batch.lengths.clamp(min=1).unsqueeze(-1))
        return -batch.advantages * batch.log_probs + self.beta / 2 * price
