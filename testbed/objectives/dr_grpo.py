"""Dr. GRPO: GRPO without the two normalisations that bias its gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.objectives._base import Hyper, check_range, objective
from testbed.objectives.ppo import PPO


@objective("dr_grpo")
@dataclass(frozen=True, kw_only=True)
class DrGRPO(PPO):
    """PPO's clipped objective on group-centred advantages, divided by a constant instead of the response length.

        ℓ = -min(rA, clip(r, 1-ε_low, 1+ε_high)·A),   L = (1/(B·L_max)) Σ_i Σ_t ℓ_it
        A_i = R_i - mean R over the responses to one prompt

    F as PPO. Without the division by std R, and by n_i, the on-policy gradient is (G-1)/G times the policy gradient.

    Reference: Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783.
    Departures: none. The constant differs between engines: TRL takes the maximum completion length, verl the padded
        width of the batch, which is also what `max_length=None` does here.
    Gradient: dℓ/dlog p = -F·A; none to the old policy or the advantages.

    Example:
        >>> DrGRPO(max_length=512).label()
        'dr_grpo(max_length=512)'
    """

    advantage = "group_centred"

    max_length: Hyper | None = None
    """L_max > 0 in tokens: the constant divisor. None: the padded width of the batch."""
    reduction: str = "seq_mean_token_sum_norm"

    def check(self) -> None:
        super().check()
        check_range(
            self.name, "max_length", self.max_length, 0, float("inf"), open_high=True, open_low=True, optional=True
        )

    def max_length_or(self, padded_width: int) -> Hyper:
        if self.max_length is None:
            return padded_width
        if isinstance(self.max_length, Tensor) and self.max_length.dim() >= 2:
            # One number per replica, as the loss has.
            return self.max_length[..., 0, 0]
        return self.max_length
