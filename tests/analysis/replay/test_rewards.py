"""Advantages from recorded rewards: whole groups of a rollout, however they were split over its updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.replay.rewards import Reestimated
from testbed import TokenBatch
from testbed.advantages import make_advantage_estimator
from testbed.errors import StorageError
from testbed.records import RecordedUpdate, RecordWriter, read_record


def batch(count: int) -> TokenBatch:
    old = torch.full((count, 2), -1.0)
    return TokenBatch(log_probs=old, old_log_probs=old, advantages=torch.zeros(count), mask=old < 0)


def reestimated(folder: Path, text: str) -> list[RecordedUpdate]:
    return list(Reestimated(text).updates(read_record(folder).updates()))


def test_groups_that_are_split_over_updates(tmp_path: Path) -> None:
    # Rewards a: 1 0 0 0, b: 1 1 0 0; each update holds half of both groups, in another order.
    with RecordWriter(tmp_path) as writer:
        writer.add(
            batch(4), step=1, update=0, prompts=["b", "a", "a", "b"], rewards=[1, 0, 1, 0], responses=[4, 1, 0, 6]
        )
        writer.add(
            batch(4), step=1, update=1, prompts=["a", "a", "b", "b"], rewards=[0, 0, 1, 0], responses=[2, 3, 5, 7]
        )
    first, second = reestimated(tmp_path, "leave_one_out")
    # 1 - 0 and 0 - ⅓ for a; 1 - ⅓ and 0 - ⅔ for b.
    np.testing.assert_allclose(first.advantages, [2 / 3, -1 / 3, 1.0, -2 / 3], rtol=1e-6)
    np.testing.assert_allclose(second.advantages, [-1 / 3, -1 / 3, 2 / 3, -2 / 3], rtol=1e-6)


def test_several_passes_over_the_same_responses_count_once(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        for update in range(3):
            writer.add(batch(4), step=1, update=update, prompts=["a"] * 4, rewards=[1, 0, 0, 0])
    for update in reestimated(tmp_path, "leave_one_out"):
        np.testing.assert_allclose(update.advantages, [1.0, -1 / 3, -1 / 3, -1 / 3], rtol=1e-6)


def test_an_estimator_with_a_memory_sees_the_rollouts_in_order(tmp_path: Path) -> None:
    rewards = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]]
    with RecordWriter(tmp_path) as writer:
        for step, row in enumerate(rewards):
            writer.add(batch(4), step=step, update=0, prompts=["a"] * 4, rewards=row)
    remembering = make_advantage_estimator("smooth_standardised")
    expected = [remembering(torch.tensor([row]), torch.tensor([0]))[0].numpy() for row in rewards]
    for update, row in zip(reestimated(tmp_path, "smooth_standardised"), expected, strict=True):
        np.testing.assert_allclose(update.advantages, row, rtol=1e-6)


def test_a_group_that_cannot_be_scored_has_no_advantage(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.add(batch(4), step=0, update=0, prompts=["a", "a", "b", "b"], rewards=[1, float("nan"), 1, 0])
    (update,) = reestimated(tmp_path, "group_centred")
    assert update.advantages.tolist() == [0.0, 0.0, 0.5, -0.5]


def test_responses_that_are_not_numbered_within_the_rollout(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.add(batch(2), step=1, update=0, prompts=["a", "a"], rewards=[1, 0])
        writer.add(batch(2), step=1, update=1, prompts=["b", "b"], rewards=[1, 0])
    with pytest.raises(StorageError, match=r"two responses have the number 0; .* RecordWriter\.add\(responses=…\)"):
        reestimated(tmp_path, "group_centred")


def test_what_an_estimator_reads_has_to_be_there(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.add(batch(2), step=1, update=0, prompts=["a", "a"], rewards=[1, 0])
    with pytest.raises(StorageError, match=r"remax cannot be estimated at step 1, update 0: .*greedy_rewards"):
        reestimated(tmp_path, "remax")
