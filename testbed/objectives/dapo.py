"""DAPO: a wider upper clip and one mean over all tokens."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.objectives._base import Hyper, objective
from testbed.objectives.ppo import PPO


@objective("dapo")
@dataclass(frozen=True, kw_only=True)
class DAPO(PPO):
    """PPO's clipped objective with "clip-higher", averaged over all tokens of the step.

        ℓ = -min(rA, clip(r, 1-ε_low, 1+ε_high)·A),   L = (1/N) Σ_i Σ_t ℓ_it,   ε_low = 0.2, ε_high = 0.28

    F as PPO.

    Reference: Yu et al., DAPO, arXiv 2503.14476v2, eq. 8.
    Departures: 1. dynamic sampling and overlong shaping, the paper's other two parts, belong to sampling and reward:
        see `testbed.sampling`. 2. Several papers call "DAPO" what is only GRPO with clip-higher.
    Gradient: dℓ/dlog p = -F·A; none to the old policy or the advantages.

    Example:
        >>> DAPO().clip_high
        0.28
    """

    clip_high: Hyper = 0.28
    reduction: str = "token_mean"
