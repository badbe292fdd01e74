"""Which responses reach the update: DAPO's dynamic sampling, and what to do with responses that ran out of room.

Groups are rewards `(..., P, G)`, P prompts with G responses each after any replica dimensions, as in
`testbed.advantages`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from testbed.advantages import zero_variance
from testbed.errors import BatchError, ConfigError

__all__ = ["CollectedGroups", "collect_groups", "informative_groups", "overlong_penalty", "without_truncated"]

Group = TypeVar("Group")


@dataclass(frozen=True)
class CollectedGroups(Generic[Group]):
    """What `collect_groups` returns."""

    groups: list[Group]
    """As many groups as were asked for, informative ones first, each part in the order they were drawn."""
    informative: int
    """How many of `groups` carry a gradient."""
    drawn: int
    """Groups drawn altogether."""
    rounds: int
    """Calls of `draw`."""


def informative_groups(rewards: Tensor) -> Tensor:
    """True for groups with two different rewards, bool `(..., P)`; the others have advantage 0 throughout.

    With a reward that only says right or wrong, these are the groups with neither 0 nor G correct responses.

    Raises:
        BatchError: a reward is NaN or infinite.

    Example:
        >>> informative_groups(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])).tolist()
        [True, False, False]
    """
    if not bool(torch.isfinite(rewards).all()):
        raise BatchError(
            "rewards holds NaN or infinity; expected a finite reward for every response. Give a response that cannot "
            "be graded the reward of a wrong one, or drop its group"
        )
    return ~zero_variance(rewards)


def collect_groups(
    draw: Callable[[], tuple[Tensor, Sequence[Group]]],
    groups: int,
    *,
    max_rounds: int,
    finished: Callable[[bool], bool] = bool,
) -> CollectedGroups[Group]:
    """Draw groups until `groups` of them are informative: DAPO's dynamic sampling.

    Surplus groups of the last round are dropped. When `max_rounds` did not bring enough, the batch is completed with
    uninformative groups drawn last: they add no gradient, only their share of the denominators, and `informative` says
    how many are not among them.

    Reference: Yu et al., DAPO, arXiv 2503.14476v2, section 3.2.
    Departures: 1. the paper samples without a limit; a policy that always or never succeeds would then never return.
        2. Rewards other than 0 and 1 are allowed; what counts is that they differ.

    Args:
        draw: returns rewards `(P, G)` and P groups of any type; called at most `max_rounds` times.
        groups: how many to return.
        max_rounds: at least 1.
        finished: given whether there are enough groups here, says whether to stop. Processes that draw in step pass a
            function that asks all of them.

    Raises:
        ConfigError: `groups` or `max_rounds` is below 1.
        BatchError: `draw` returned another number of groups than of rows of rewards, or too few groups altogether.

    Example:
        >>> rounds = iter([[[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
        >>> collected = collect_groups(lambda: (torch.tensor(next(rounds)), ["a", "b"]), 2, max_rounds=5)
        >>> collected.groups, collected.informative, collected.drawn, collected.rounds
        (['b', 'a'], 2, 4, 2)
    """
    for name, value in (("groups", groups), ("max_rounds", max_rounds)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1")
    kept: list[Group] = []
    spare: list[Group] = []
    rounds = 0
    while rounds < max_rounds and not finished(len(kept) >= groups):
        rewards, drawn = draw()
        rounds += 1
        if rewards.dim() != 2 or len(rewards) != len(drawn):
            raise BatchError(
                f"draw returned rewards of shape {tuple(rewards.shape)} for {len(drawn)} groups; expected (P, G) and P "
                "groups"
            )
        for group, informative in zip(drawn, informative_groups(rewards).tolist(), strict=True):
            (kept if informative else spare).append(group)
    total = len(kept) + len(spare)
    if total < groups:
        raise BatchError(
            f"{rounds} rounds drew {total} groups altogether; expected at least {groups}. Draw more groups a round, or "
            "raise max_rounds"
        )
    informative = min(len(kept), groups)
    missing = groups - informative
    filling = spare[len(spare) - missing :] if missing else []
    return CollectedGroups(groups=kept[:groups] + filling, informative=informative, drawn=total, rounds=rounds)


def overlong_penalty(lengths: Tensor, *, max_length: int = 20480, cache: int = 4096) -> Tensor:
    """What is added to the reward of a response of n tokens: 0, then a ramp down to -1 over the last `cache` tokens.

        0                               n ≤ L_max - L_cache
        (L_max - L_cache - n)/L_cache   L_max - L_cache < n ≤ L_max
        -1                              L_max < n

    Reference: Yu et al., DAPO, arXiv 2503.14476v2, section 3.4 (soft overlong punishment).
    Departures: none; the paper adds it to a correctness reward of ±1.

    Args:
        lengths: n, `(...)`, response tokens.
        max_length: L_max, tokens.
        cache: L_cache, tokens, 1..L_max.

    Raises:
        ConfigError: `cache` is not between 1 and `max_length`.

    Example:
        >>> overlong_penalty(torch.tensor([60, 80, 90, 100, 101]), max_length=100, cache=20).tolist()
        [0.0, 0.0, -0.5, -1.0, -1.0]
    """
    if not 1 <= cache <= max_length:
        raise ConfigError(f"cache is {cache} for a max_length of {max_length}; expected 1 to max_length tokens")
    return ((max_length - cache - lengths) / cache).clamp(-1.0, 0.0)


def without_truncated(mask: Tensor, truncated: Tensor) -> Tensor:
    """The mask without the responses that did not end by themselves: overlong filtering.

    Such a response was cut off, so that its reward says nothing about it. It stays in its group's mean and deviation.

    Reference: Yu et al., DAPO, arXiv 2503.14476v2, section 3.4 (overlong filtering).

    Args:
        mask: bool `(..., B, T)`, True on response tokens.
        truncated: bool `(..., B)`, True where the response reached the limit without an end token.

    Raises:
        BatchError: shapes differ.

    Example:
        >>> without_truncated(torch.ones(2, 2).bool(), torch.tensor([False, True])).tolist()
        [[True, True], [False, False]]
    """
    if truncated.shape != mask.shape[:-1]:
        raise BatchError(
            f"truncated has shape {tuple(truncated.shape)}; expected {tuple(mask.shape[:-1])}, one value per response"
        )
    return mask & ~truncated.unsqueeze(-1)
