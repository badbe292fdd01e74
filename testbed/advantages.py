"""From the rewards of a group to the advantages of its responses.

Every estimator maps rewards `(..., P, G)`, P prompts with G responses each after any replica dimensions, to
advantages of the same shape. All of them are constants for differentiation.

All read rewards alike: half precision is widened to float32, whole numbers are refused, and a reward that is NaN or
infinite is a `BatchError` that names its place, because it would decide the advantage of its whole group.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from testbed.errors import BatchError, ConfigError
from testbed.registry import Registry, parse_call

__all__ = [
    "SmoothStandardisation",
    "advantage_names",
    "advantages",
    "check_group_size",
    "group_centred",
    "group_standardised",
    "leave_one_out",
    "make_advantage_estimator",
    "zero_variance",
]

_ROUNDINGS = 8
"""Units of rounding that rewards called equal may differ by: a sum of ten parts is rounded nine times."""

advantages: Registry[Callable[..., Any]] = Registry("advantage estimator")


def advantage_names() -> list[str]:
    """Every registered estimator, sorted."""
    return advantages.names()


def make_advantage_estimator(text: str) -> Callable[..., Tensor]:
    """An estimator from `name` or `name(key=value,…)`; one with state is a fresh object.

    Raises:
        UnknownNameError: no such estimator.
        ConfigError: no such parameter, or a value out of its range.

    Example:
        >>> make_advantage_estimator("group_standardised(ddof=1)")(torch.tensor([[1.0, 0.0]]))
        tensor([[ 0.7071, -0.7071]])
    """
    name, settings = parse_call(text)
    estimator = advantages[name]
    known = [key for key, item in inspect.signature(estimator).parameters.items() if item.kind is item.KEYWORD_ONLY]
    for key in settings:
        if key not in known:
            raise ConfigError(f"advantage {name} has no parameter {key!r}; it has: {', '.join(known) or 'none'}")
    if isinstance(estimator, type):
        return cast(Callable[..., Tensor], estimator(**settings))
    if not settings:
        return estimator
    configured = functools.partial(estimator, **settings)
    # A parameter out of its range is refused here and not at the first rollout.
    configured(torch.zeros(1, 2))
    return configured


def check_group_size(text: str, size: int) -> None:
    """Refuse a group that is too small for an estimator, before anything is sampled.

    Args:
        text: `name` or `name(key=value,…)`.
        size: G, responses per prompt.

    Raises:
        UnknownNameError: no such estimator.
        ConfigError: no such parameter, or the group is too small.

    Example:
        >>> check_group_size("group_centred", 1)
    """
    estimator = make_advantage_estimator(text)
    try:
        estimator(torch.zeros(1, size))
    except BatchError as error:
        raise ConfigError(
            f"group_size is {size} with the {text} advantage, which needs at least 2 responses per prompt; raise "
            "group_size, or pass advantage='none'"
        ) from error


def zero_variance(rewards: Tensor) -> Tensor:
    """True for groups whose rewards are all equal but for rounding, `(..., P)`.

    Equal means: the extremes differ by no more than eight units of rounding, 1e-6 of the largest in single precision.
    That is what is left when the parts of a reward are added up in another order. Compared by the extremes and not
    through a variance, whose own rounding would decide.

    Example:
        >>> zero_variance(torch.tensor([[1.7, 1.7000002], [1.7, 1.701]])).tolist()
        [True, False]
    """
    rewards = _widened(rewards)
    least, greatest = torch.aminmax(rewards, dim=-1)
    if not rewards.is_floating_point():
        return least == greatest
    return greatest - least <= _ROUNDINGS * torch.finfo(rewards.dtype).eps * torch.maximum(-least, greatest)


@advantages.register("group_standardised")
def group_standardised(rewards: Tensor, *, ddof: int = 0, epsilon: float = 0.0) -> Tensor:
    """A_i = (R_i - mean R)/(std R + ε), and 0 throughout a group whose rewards are all equal but for rounding.

    Args:
        rewards: `(..., P, G)`.
        ddof: 0 divides the squared deviations by G, 1 by G-1. The papers do not say which; verl, TRL, ms-swift and
            OpenRLHF use 1. The two differ by the factor √((G-1)/G).
        epsilon: ε, in units of reward. The papers have none; verl adds 1e-6, TRL 1e-4, OpenRLHF 1e-9.

    Reference: Shao et al., DeepSeekMath, arXiv 2402.03300, section 4.1.2.
    Departures: a group of equal rewards is recognised as such, see `zero_variance`, so that neither a rounded sum nor
        a rounded mean can become an advantage.

    Raises:
        BatchError: groups of one response, whose standard deviation carries no information, or rewards that are not
            finite floating-point numbers.
        ConfigError: `ddof` is neither 0 nor 1, or `epsilon` is negative.

    Example:
        >>> group_standardised(torch.tensor([1.0, 0.0])).tolist()
        [1.0, -1.0]
        >>> group_standardised(torch.tensor([0.1, 0.1, 0.1])).tolist()
        [0.0, 0.0, 0.0]
    """
    if isinstance(ddof, bool) or ddof not in (0, 1):
        raise ConfigError(f"group_standardised: ddof is {ddof!r}; expected 0 or 1")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < math.inf:
        raise ConfigError(f"group_standardised: epsilon is {epsilon!r}; expected a number of at least 0")
    rewards = _checked(rewards, "group_standardised", smallest=2)
    centred = rewards - rewards.mean(-1, keepdim=True)
    deviation = (centred.square().sum(-1, keepdim=True) / (rewards.shape[-1] - ddof)).sqrt()
    if epsilon:
        deviation += epsilon
    # Nothing divided by infinity is 0, whatever the rounding of the mean.
    return centred / deviation.masked_fill_(zero_variance(rewards).unsqueeze(-1), torch.inf)


@advantages.register("group_centred")
def group_centred(rewards: Tensor) -> Tensor:
    """A_i = R_i - mean R over the group, in units of reward.

    Reference: Liu et al., Understanding R1-Zero-like training, arXiv 2503.20783.

    Raises:
        BatchError: rewards that are not finite floating-point numbers.

    Example:
        >>> group_centred(torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
        [0.75, -0.25, -0.25, -0.25]
    """
    rewards = _checked(rewards, "group_centred")
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred.masked_fill(zero_variance(rewards).unsqueeze(-1), 0.0)


@advantages.register("leave_one_out")
def leave_one_out(rewards: Tensor) -> Tensor:
    """A_i = R_i - mean of the other G-1 rewards = (R_i - mean R)·G/(G-1), in units of reward.

    Reference: Ahmadian et al., Back to basics, arXiv 2402.14740 (RLOO).

    Raises:
        BatchError: groups of one response, where there is no other, or rewards that are not finite floating-point
            numbers.

    Example:
        >>> leave_one_out(torch.tensor([1.0, 0.0])).tolist()
        [1.0, -1.0]
    """
    rewards = _checked(rewards, "leave_one_out", smallest=2)
    group = rewards.shape[-1]
    centred: Tensor = group_centred(rewards)
    return centred * (group / (group - 1))


@advantages.register("none")
def raw_rewards(rewards: Tensor) -> Tensor:
    """A_i = R_i: no baseline.

    Raises:
        BatchError: rewards that are not finite floating-point numbers.
    """
    return _checked(rewards, "none")


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
        rewards = _checked(rewards, "smooth_standardised", smallest=2)
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
        rounding = 4 * _ROUNDINGS * torch.finfo(rewards.dtype).eps * total_mean.abs()
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


def _checked(rewards: Tensor, name: str, smallest: int = 1) -> Tensor:
    """The rewards in single precision or wider, if an estimator can read them."""
    if smallest > 1 and (rewards.dim() == 0 or rewards.shape[-1] < smallest):
        raise BatchError(
            f"{name} got groups of one response (rewards of shape {tuple(rewards.shape)}); expected at least two per "
            "prompt. Raise group_size, or use the 'none' advantage"
        )
    if not rewards.is_floating_point():
        raise BatchError(f"{name} got rewards of {rewards.dtype}; expected floating point. Pass rewards.float()")
    rewards = _widened(rewards)
    # One infinity or NaN makes a sum infinite or NaN. Finite numbers can overflow it, hence the second look.
    if not bool(rewards.sum().isfinite()) and not bool(rewards.isfinite().all()):
        places = (~rewards.isfinite()).nonzero()
        first = tuple(places[0].tolist())
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        raise BatchError(
            f"{name}: rewards{list(first)} is {rewards[first].item()}{more}; expected a finite reward for every "
            "response. Give a response that cannot be graded the reward of a wrong one, or drop its group"
        )
    return rewards


def _widened(rewards: Tensor) -> Tensor:
    return rewards.float() if rewards.dtype in (torch.float16, torch.bfloat16) else rewards
