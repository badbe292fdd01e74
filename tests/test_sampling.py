"""Dynamic sampling, overlong shaping and overlong filtering."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from testbed.advantages import group_standardised
from testbed.errors import BatchError, ConfigError
from testbed.sampling import collect_groups, informative_groups, overlong_penalty, without_truncated

GOOD, BAD = [1.0, 0.0], [1.0, 1.0]


def rounds_of(*rounds: list[list[float]]) -> Callable[[], tuple[Tensor, list[str]]]:
    """A `draw` that returns the given rewards, round by round, and names groups `round.index`."""
    remaining = list(enumerate(rounds))

    def draw() -> tuple[Tensor, list[str]]:
        number, rewards = remaining.pop(0)
        return torch.tensor(rewards), [f"{number}.{index}" for index in range(len(rewards))]

    return draw


def test_informative_groups_are_those_with_an_advantage() -> None:
    # All sixteen right-or-wrong groups of four, and one of equal rewards that are not representable exactly.
    rewards = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    rewards = torch.cat([rewards, torch.full((1, 4), 0.1)])
    expected = (group_standardised(rewards) != 0).any(-1)
    assert torch.equal(informative_groups(rewards), expected)
    assert expected.sum() == 14


def test_informative_groups_over_replicas() -> None:
    rewards = torch.tensor([[GOOD, BAD], [BAD, GOOD]])
    assert informative_groups(rewards).tolist() == [[True, False], [False, True]]


def test_informative_groups_rejects_missing_rewards() -> None:
    with pytest.raises(BatchError, match="rewards holds NaN or infinity"):
        informative_groups(torch.tensor([[1.0, torch.nan]]))


def test_first_round_suffices() -> None:
    collected = collect_groups(rounds_of([GOOD, BAD, GOOD]), 2, max_rounds=9)
    assert collected.groups == ["0.0", "0.2"]
    assert (collected.informative, collected.drawn, collected.rounds) == (2, 3, 1)


def test_draws_until_there_are_enough() -> None:
    collected = collect_groups(rounds_of([BAD, GOOD], [BAD, BAD], [GOOD, GOOD]), 2, max_rounds=9)
    assert collected.groups == ["0.1", "2.0"]
    assert (collected.informative, collected.drawn, collected.rounds) == (2, 6, 3)


def test_completes_the_batch_with_the_latest_uninformative_groups() -> None:
    collected = collect_groups(rounds_of([BAD, BAD], [GOOD, BAD]), 3, max_rounds=2)
    assert collected.groups == ["1.0", "0.1", "1.1"]
    assert (collected.informative, collected.rounds) == (1, 2)


def test_rejects_too_few_groups() -> None:
    with pytest.raises(BatchError, match="1 rounds drew 2 groups altogether; expected at least 3"):
        collect_groups(rounds_of([GOOD, BAD]), 3, max_rounds=1)


def test_rejects_rewards_of_other_groups() -> None:
    with pytest.raises(BatchError, match=r"rewards of shape \(1, 2\) for 2 groups"):
        collect_groups(lambda: (torch.zeros(1, 2), ["a", "b"]), 1, max_rounds=1)


@pytest.mark.parametrize(("groups", "max_rounds", "name"), [(0, 1, "groups"), (1, 0, "max_rounds")])
def test_rejects_nothing_to_do(groups: int, max_rounds: int, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0; expected at least 1"):
        collect_groups(rounds_of([GOOD]), groups, max_rounds=max_rounds)


def test_overlong_penalty_with_the_papers_lengths() -> None:
    # The ramp begins at 20480 - 4096 = 16384 tokens and is half-way at 18432.
    lengths = torch.tensor([1, 16384, 16385, 18432, 20480, 30000])
    expected = torch.tensor([0, 0, -1 / 4096, -0.5, -1, -1])
    torch.testing.assert_close(overlong_penalty(lengths), expected, rtol=1e-6, atol=0)  # float32


def test_overlong_penalty_rejects_a_ramp_longer_than_the_response() -> None:
    with pytest.raises(ConfigError, match="cache is 5 for a max_length of 4"):
        overlong_penalty(torch.tensor([1]), max_length=4, cache=5)


def test_without_truncated_masks_whole_responses() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert without_truncated(mask, torch.tensor([False, True])).tolist() == [[True, True, False], [False] * 3]


def test_without_truncated_rejects_another_shape() -> None:
    with pytest.raises(BatchError, match=r"truncated has shape \(3,\); expected \(2,\)"):
        without_truncated(torch.ones(2, 4).bool(), torch.zeros(3).bool())


def test_goes_on_until_every_process_has_enough() -> None:
    # This process has enough after the first round; the one it draws in step with, after the second.
    others = iter([False, False, True])
    collected = collect_groups(
        rounds_of([GOOD, GOOD], [GOOD, BAD]), 1, max_rounds=9, finished=lambda enough: next(others) and enough
    )
    assert (collected.groups, collected.rounds) == (["0.0"], 2)
