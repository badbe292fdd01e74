"""Advantages for solving a prompt at least once in k attempts."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from testbed.advantages._base import advantages, readable
from testbed.errors import BatchError, ConfigError

__all__ = ["pass_at_k"]

Form = Literal["analytic", "unbiased", "best_minus_second"]


@advantages.register("pass_at_k")
def pass_at_k(rewards: Tensor, *, k: int = 2, form: Form = "analytic") -> Tensor:
    """The share a response has in its group's pass@k, of G responses of which c are right.

        analytic           ρ = 1 - C(G-c,k)/C(G,k),  σ = √(ρ(1-ρ))
                           right: (1-ρ)/σ          wrong: (1 - ρ - C(G-c-1,k-1)/C(G-1,k-1))/σ
        unbiased           right: k/G              wrong: (k/G)·(1 - C(G-1-c,k-1)/C(G-1,k-1))
        best_minus_second  the best: R₍₁₎ - R₍₂₎   all others: 0

    analytic is 0 where ρ is 0 or 1, that is in a group without a success and once c > G - k. unbiased is a transformed
    reward without a baseline: summed over the group, A_i ∇log π(y_i) has the gradient of pass@k as its mean.
    best_minus_second takes any rewards; on 0 and 1 it acts only in groups with exactly one success.

    Args:
        rewards: `(..., P, G)`, 0 or 1 for the first two forms.
        k: attempts, from 1 to G.
        form: which of the three.

    Reference: arXiv 2508.10751 (analytic) and PKPO, arXiv 2505.15201 (unbiased), both from restatements checked against
        all subsets; arXiv 2503.19595 as verl's `grpo_passk` has it, without its division (best_minus_second).
    Departures: ties for the best give 0 to all.

    Raises:
        BatchError: groups smaller than k or than two, rewards that are neither 0 nor 1 where they have to be, or not
            finite floating-point numbers.
        ConfigError: `k` is not a positive whole number, or there is no such form.

    Example:
        >>> import torch
        >>> one_of_four = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double()
        >>> pass_at_k(one_of_four)[0, :2].tolist()
        [1.0, -0.3333333...]
        >>> pass_at_k(one_of_four, form="unbiased")[0, :2].tolist()
        [0.5, 0.1666666...]
        >>> pass_at_k(one_of_four, form="best_minus_second").tolist()
        [[1.0, 0.0, 0.0, 0.0]]
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"pass_at_k: k is {k!r}; expected a positive whole number")
    if form not in get_args(Form):
        raise ConfigError(f"pass_at_k: form is {form!r}; expected {' or '.join(map(repr, get_args(Form)))}")
    rewards = readable(rewards, "pass_at_k", least=2)
    if form == "best_minus_second":
        two = rewards.topk(2, -1).values
        best, second = two[..., :1], two[..., 1:]
        return torch.where(rewards == best, best - second, 0.0)
    size = rewards.shape[-1]
    if size < k:
        raise BatchError(f"pass_at_k got groups of {size}; expected at least k = {k} responses per prompt")
    right = rewards == 1
    if not bool((right | (rewards == 0)).all()):
        raise BatchError(f"pass_at_k(form={form!r}) got rewards other than 0 and 1; use form='best_minus_second'")
    # One row per number of successes: shares are looked up, and not computed for every group.
    rows = [_shares(size, count, k, form) for count in range(size + 1)]
    table = torch.tensor(rows, dtype=rewards.dtype, device=rewards.device)[right.sum(-1)]
    return torch.where(right, table[..., :1], table[..., 1:])


def _shares(size: int, right: int, k: int, form: Form) -> tuple[float, float]:
    """What a right and a wrong response get in a group with so many right ones."""
    without_it = math.comb(size - 1 - right, k - 1) / math.comb(size - 1, k - 1) if right < size else 0.0
    if form == "unbiased":
        return k / size, k / size * (1 - without_it)
    failing = math.comb(size - right, k) / math.comb(size, k)
    deviation = math.sqrt(failing * (1 - failing))
    return (0.0, 0.0) if deviation == 0 else (failing / deviation, (failing - without_it) / deviation)
