"""DCPO's estimator: the statistics of this visit to a prompt blended with those of all visits."""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.advantages._base import ROUNDINGS, advantages, readable, zero_variance
from testbed.errors import BatchError

__all__ = ["SmoothStandardisation"]


@advantages.register("smooth_standardised")
class SmoothStandardisation:
    """DCPO's smooth advantage standardisation: this visit's statistics blended with those of all visits so far.

        i = visits to the prompt including this one
        A_new   = (R - μ_new)/σ_new               over this visit's G rewards
        A_total = (R - μ_tot)/σ_tot               over all G·i rewards of the prompt
        SA_new   = ((i-1)/i)·A_new + (1/i)·A_total
        SA_total = (1/i)·A_new + ((i-1)/i)·A_total
        A = SA_new where |SA_new| < |SA_total|, else SA_total

    Population statistics throughout; a standardisation with σ = 0 is 0. The first visit is plain group
    standardisation. When all rewards of a later visit agree but earlier ones did not, every response gets the same
    advantage A_total/i: the advantages of a group need not sum to zero.

    Reference: Yang et al., DCPO, arXiv 2509.02333v2, eq. 5-7, 29, 30.
    Departures: none from the paper. The released script does not read the stored statistics back, so that every visit
        counts as the first, and feeds sample standard deviations into the merge of population ones.

    The state is one (visits, mean, variance) per prompt and replica; `state_dict` and `load_state_dict` carry it
    through a checkpoint.

    Example:
        >>> estimator = SmoothStandardisation()
        >>> estimator(torch.tensor([[0.0, 0.0]])).tolist()
        [[0.0, 0.0]]
        >>> estimator(torch.tensor([[1.0, 1.0]])).tolist()  # μ_tot = σ_tot = ½, A_total = 1, i = 2
        [[0.5, 0.5]]
    """

    def __init__(self) -> None:
        self._visits: Tensor | None = None
        self._mean: Tensor | None = None
        self._variance: Tensor | None = None

    def __call__(self, rewards: Tensor, prompt_ids: Tensor | None = None) -> Tensor:
        """Advantages of this visit; also records it.

        Args:
            rewards: `(..., P, G)`.
            prompt_ids: int64 `(P,)`, the persistent number of each prompt; `None`: 0..P-1. No id may repeat.

        Raises:
            BatchError: repeated, negative or fractional ids, groups of one response, rewards that are not finite
                floating-point numbers, or replica dimensions that changed between calls. The state is as before.
        """
        rewards = readable(rewards, "smooth_standardised", least=2)
        if prompt_ids is None:
            prompt_ids = torch.arange(rewards.shape[-2])
        ids = prompt_ids.tolist()
        if prompt_ids.shape != rewards.shape[-2:-1] or len(set(ids)) != len(ids):
            raise BatchError(
                f"prompt_ids is {ids[:8]} for rewards of shape {tuple(rewards.shape)}; expected one "
                "distinct id per prompt. Merge the groups of a prompt that was drawn twice"
            )
        if prompt_ids.is_floating_point() or min(ids, default=0) < 0:
            raise BatchError(f"prompt_ids is {ids[:8]}; expected integers from 0 on, each prompt its own for good")
        self._make_room(rewards, int(prompt_ids.max()) + 1)
        assert self._visits is not None
        assert self._mean is not None
        assert self._variance is not None

        visits = self._visits[..., prompt_ids] + 1
        old_mean, old_variance = self._mean[..., prompt_ids], self._variance[..., prompt_ids]
        new_mean, new_variance = rewards.mean(-1), rewards.var(-1, correction=0)
        equal = zero_variance(rewards)
        new_variance = new_variance.masked_fill(equal, 0.0)
        earlier, current = (visits - 1) / visits, 1 / visits
        total_mean = current * new_mean + earlier * old_mean
        total_variance = (
            current * new_variance + earlier * old_variance + current * earlier * (old_mean - new_mean).square()
        )

        # Means merged over visits are rounded: without a variance of its own, a deviation of that size is none.
        rounding = 4 * ROUNDINGS * torch.finfo(rewards.dtype).eps * total_mean.abs()
        unchanged = equal & (total_variance.sqrt() <= rounding)
        a_new = _standardised(rewards, new_mean, new_variance, equal)
        a_total = _standardised(rewards, total_mean, total_variance, unchanged)
        earlier, current = earlier.unsqueeze(-1), current.unsqueeze(-1)
        blend_new = earlier * a_new + current * a_total
        blend_total = current * a_new + earlier * a_total

        self._visits[..., prompt_ids] = visits
        self._mean[..., prompt_ids] = total_mean
        self._variance[..., prompt_ids] = total_variance
        return torch.where(blend_new.abs() < blend_total.abs(), blend_new, blend_total)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of visits, mean and population variance, each `(..., prompts seen)`; empty before the first call."""
        if self._visits is None or self._mean is None or self._variance is None:
            return {}
        return {
            "visits": self._visits.clone(),
            "mean": self._mean.clone(),
            "variance": self._variance.clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            BatchError: a key is missing or unknown.
        """
        if state and set(state) != {"visits", "mean", "variance"}:
            raise BatchError(f"state has keys {sorted(state)}; expected visits, mean and variance from state_dict()")
        self._visits, self._mean, self._variance = (
            state[name].clone() if state else None for name in ("visits", "mean", "variance")
        )

    def _make_room(self, rewards: Tensor, prompts: int) -> None:
        shape = (*rewards.shape[:-2], prompts)
        if self._visits is None or self._mean is None or self._variance is None:
            self._visits, self._mean, self._variance = (rewards.new_zeros(shape) for _ in range(3))
        elif self._visits.shape[:-1] != shape[:-1]:
            raise BatchError(
                f"rewards has replica dimensions {tuple(shape[:-1])}; expected {tuple(self._visits.shape[:-1])} as in "
                "the first call. Use one estimator per run"
            )
        elif self._visits.shape[-1] < prompts:
            grow = (0, prompts - self._visits.shape[-1])
            self._visits, self._mean, self._variance = (
                torch.nn.functional.pad(old, grow) for old in (self._visits, self._mean, self._variance)
            )


def _standardised(rewards: Tensor, mean: Tensor, variance: Tensor, constant: Tensor) -> Tensor:
    mean, deviation, constant = mean.unsqueeze(-1), variance.sqrt().unsqueeze(-1), constant.unsqueeze(-1)
    return torch.where(constant, 0.0, (rewards - mean) / deviation.masked_fill(constant, 1.0))
