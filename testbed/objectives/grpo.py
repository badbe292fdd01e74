"""GRPO: PPO's objective without a critic, averaged response by response."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.objectives._base import objective
from testbed.objectives.ppo import PPO


@objective("grpo")
@dataclass(frozen=True, kw_only=True)
class GRPO(PPO):
    """PPO's clipped objective on group-standardised advantages, every response weighing the same.

        ℓ = -min(rA, clip(r, 1-ε_low, 1+ε_high)·A),   L = (1/B) Σ_i (1/n_i) Σ_t ℓ_it
        A_i = (R_i - mean R) / std R over the responses to one prompt

    F as PPO.

    Reference: Shao et al., DeepSeekMath, arXiv 2402.03300, eq. 3.
    Departures: 1. the paper adds β·KL(current ‖ reference) inside the token sum; wrap with `reference_kl` for it.
        2. the paper states neither the ε nor the kind of standard deviation in A; see `testbed.advantages`.
    Gradient: dℓ/dlog p = -F·A; none to the old policy or the advantages.

    Example:
        >>> GRPO().reduction
        'seq_mean_token_mean'
    """

    reduction: str = "seq_mean_token_mean"
