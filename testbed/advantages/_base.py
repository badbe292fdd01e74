"""What the estimators share: their registry, their notation, and how rewards are read."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from testbed.errors import BatchError, ConfigError, shown
from testbed.registry import Registry, parse_call

__all__ = [
    "ROUNDINGS",
    "advantage_names",
    "advantages",
    "check_ddof",
    "check_group_size",
    "check_lengths",
    "check_not_negative",
    "estimate",
    "inputs_of",
    "make_advantage_estimator",
    "readable",
    "zero_variance",
]

ROUNDINGS = 8
"""Units of rounding that rewards called equal may differ by: a sum of ten parts is rounded nine times."""

advantages: Registry[Callable[..., Any]] = Registry("advantage estimator", package="testbed.advantages")


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
            raise ConfigError(f"advantage {name} has no parameter {shown(key)}; it has: {', '.join(known) or 'none'}")
    if isinstance(estimator, type):
        return cast(Callable[..., Tensor], estimator(**settings))
    if not settings:
        return estimator
    configured = functools.partial(estimator, **settings)
    # A parameter out of its range is refused here and not at the first rollout.
    with contextlib.suppress(BatchError):
        estimate(configured, torch.zeros(1, 2), lengths=torch.ones(1, 2), greedy_rewards=torch.zeros(1))
    return configured


def estimate(estimator: Callable[..., Tensor], rewards: Tensor, **inputs: Tensor | None) -> Tensor:
    """An estimator's advantages, given what it reads besides the rewards.

    Args:
        estimator: from `make_advantage_estimator`.
        rewards: `(..., P, G)`.
        inputs: what is at hand by the name of the estimator's parameter: `lengths` `(..., P, G)`, tokens of each
            response; `prompt_ids` `(P,)`; `greedy_rewards` `(..., P)`. What the estimator does not read is left out.

    Raises:
        BatchError: the estimator reads something that is not at hand, or cannot read it.

    Example:
        >>> opo = make_advantage_estimator("opo")
        >>> estimate(opo, torch.tensor([[1.0, 0.0]]), lengths=torch.tensor([[1, 3]])).tolist()
        [[0.75, -0.25]]
    """
    read = {}
    for name, required in inputs_of(estimator).items():
        given = inputs.get(name)
        if given is not None:
            read[name] = given
        elif required:
            raise BatchError(
                f"the advantage estimator reads {name}, which is not at hand here; expected a trainer that "
                f"passes it. Choose another estimator, or call it yourself with {name}="
            )
    return estimator(rewards, **read)


def inputs_of(estimator: Callable[..., Tensor]) -> dict[str, bool]:
    """What an estimator reads besides the rewards, by name, and whether it cannot do without.

    >>> inputs_of(make_advantage_estimator("opo"))
    {'lengths': True}
    """
    parameters = list(inspect.signature(estimator).parameters.values())[1:]
    return {
        parameter.name: parameter.default is parameter.empty
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }


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
        estimate(estimator, torch.zeros(1, size), lengths=torch.ones(1, size))
    except BatchError as error:
        raise ConfigError(
            f"group_size is {size} with the {text} advantage, which cannot use it: {error}. Raise group_size, or pass "
            "another advantage, such as 'none'"
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
    rewards = widened(rewards)
    least, greatest = torch.aminmax(rewards, dim=-1)
    if not rewards.is_floating_point():
        return least == greatest
    return greatest - least <= ROUNDINGS * torch.finfo(rewards.dtype).eps * torch.maximum(-least, greatest)


def readable(rewards: Tensor, name: str, *, least: int = 1) -> Tensor:
    """The rewards in single precision or wider, if an estimator can read them."""
    if least > 1 and (rewards.dim() == 0 or rewards.shape[-1] < least):
        raise BatchError(
            f"{name} got groups of one response (rewards of shape {tuple(rewards.shape)}); expected at least two per "
            "prompt. Raise group_size, or use the 'none' advantage"
        )
    if not rewards.is_floating_point():
        raise BatchError(f"{name} got rewards of {rewards.dtype}; expected floating point. Pass rewards.float()")
    rewards = widened(rewards)
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


def widened(rewards: Tensor) -> Tensor:
    return rewards.float() if rewards.dtype in (torch.float16, torch.bfloat16) else rewards


def check_lengths(name: str, lengths: Tensor, rewards: Tensor) -> Tensor:
    """The lengths in the dtype of the rewards.

    Raises:
        BatchError: another shape, a negative length, or a group without a token.
    """
    if lengths.shape != rewards.shape:
        raise BatchError(
            f"{name} got lengths of shape {tuple(lengths.shape)}; expected {tuple(rewards.shape)} as the rewards: the "
            "number of tokens of every response"
        )
    if bool((lengths < 0).any()) or not bool((lengths.sum(-1) > 0).all()):
        raise BatchError(f"{name} got a negative length or a group without a token; expected what the mask counts")
    return lengths.to(rewards)


def check_ddof(name: str, ddof: object) -> None:
    """Raise a `ConfigError` unless `ddof` is 0 or 1."""
    if isinstance(ddof, bool) or ddof not in (0, 1):
        raise ConfigError(f"{name}: ddof is {shown(ddof)}; expected 0 or 1")


def check_not_negative(name: str, parameter: str, value: object) -> None:
    """Raise a `ConfigError` unless `value` is a finite number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(f"{name}: {parameter} is {shown(value)}; expected a number of at least 0")
