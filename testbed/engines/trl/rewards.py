"""Rewards of this project as reward functions for TRL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from testbed.sampling import overlong_penalty

__all__ = ["overlong_reward", "with_overlong_reward"]


def overlong_reward(max_length: int, cache: int) -> Callable[..., list[float]]:
    """DAPO's soft overlong punishment as a reward function for TRL, to be added to the others.

    Args:
        max_length: L_max, tokens.
        cache: L_cache, tokens.

    Raises:
        ConfigError: `cache` is not between 1 and `max_length`.

    Example:
        >>> overlong_reward(max_length=4, cache=2)(completion_ids=[[7], [7, 7, 7], [7, 7, 7, 7]])
        [0.0, -0.5, -1.0]
    """
    overlong_penalty(torch.tensor([0]), max_length=max_length, cache=cache)

    def overlong(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        return [abs(x) and x for x in overlong_penalty(lengths, max_length=max_length, cache=cache).tolist()]

    return overlong


def with_overlong_reward(reward_funcs: Any, args: Any, cache: int | None) -> list[Any]:
    """A list of reward functions, the punishment with weight 1 among them if there is a `cache`."""
    functions = list(reward_funcs) if isinstance(reward_funcs, Sequence) else [reward_funcs]
    if cache is None:
        return functions
    if args.reward_weights is not None:
        args.reward_weights = [*args.reward_weights, 1.0]
    return [*functions, overlong_reward(args.max_completion_length, cache)]
