"""Engines: what is said of the objectives and estimators that training engines ship beside the five papers'."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives import Objective, make_objective

PAPER = "Engines"
PPO = {"objective": "ppo"}
UNCLIPPED = {"objective": "ppo(clip_low=1e9,clip_high=1e9)"}


def gradient(objective: str | Objective, ratios: Tensor, advantages: Tensor, old: Tensor) -> Tensor:
    """dL/dlog p of every token, `(..., B, T)`, with the sampler equal to the old policy."""
    log_probs = (old + ratios.log()).requires_grad_()
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=advantages,
        mask=torch.ones_like(old, dtype=torch.bool),
        sampler_log_probs=old,
    )
    (found,) = torch.autograd.grad(make_objective(objective).loss(batch).sum(), log_probs)
    return found


def expected_factor(estimator: Callable[[Tensor], Tensor], success: float, size: int) -> float:
    """What an estimator multiplies ∇p by, exactly: rewards of 0 and 1, success rate p, groups of G.

    E[(1/G) Σ A_i ∇log π(y_i)] = Σ_m P(m) ( m A₊/(G p) - (G-m) A₋/(G (1-p)) ) ∇p, since the score of a response given
    its outcome averages to ∇p/p or -∇p/(1-p); m of G responses succeed, A₊ and A₋ are their advantages.
    """
    groups = rewards_by_count(size)
    advantages = estimator(groups).numpy()
    total = 0.0
    for right in range(size + 1):
        chance = math.comb(size, right) * success**right * (1 - success) ** (size - right)
        above = right * advantages[right, 0] / success if right else 0.0
        below = (size - right) * advantages[right, -1] / (1 - success) if right < size else 0.0
        total += chance * (above - below) / size
    return total


def rewards_by_count(size: int) -> Tensor:
    """Groups with 0 to G successes, which come first; float64 `(G + 1, G)`."""
    return (torch.arange(size) < torch.arange(size + 1).unsqueeze(-1)).double()


def largest(values: Sequence[float] | np.ndarray) -> float:
    """The largest size of any; NaN where one is."""
    return float(np.max(np.abs(np.asarray(values, dtype=np.float64))))
