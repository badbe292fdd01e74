"""What a loss inside verl writes down; a policy loss is called with plain tensors, so verl itself is not needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.verl import policy_loss
from testbed.engines.verl_recording import RECORD_VARIABLE, UPDATES_VARIABLE, VerlRecording
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.records import read_record

MASK = torch.arange(6) < torch.tensor([[6], [4], [2], [5]])
OLD = -torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) - 0.1


def new(update: int) -> Tensor:
    return OLD + 0.2 * update * torch.randn(4, 6, generator=torch.Generator().manual_seed(update))


ADVANTAGES = torch.tensor([[1.0], [-0.5], [2.0], [-1.5]]).expand(4, 6)


def micro_batch(loss: Any, update: int, rows: slice, dp_size: int = 1) -> None:
    """As verl's `ppo_loss` calls a registered loss."""
    information = {"dp_size": dp_size, "batch_num_tokens": 17 * dp_size, "global_batch_size": 4 * dp_size}
    loss(
        old_log_prob=OLD[rows],
        log_prob=new(update)[rows].requires_grad_(),
        advantages=ADVANTAGES[rows],
        response_mask=MASK[rows],
        config=SimpleNamespace(global_batch_info=information),
    )


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RECORD_VARIABLE, str(tmp_path / "record"))
    monkeypatch.setenv(UPDATES_VARIABLE, "2")
    return tmp_path / "record"


def test_micro_batches_become_updates_and_updates_rollouts(asked: Path) -> None:
    loss = policy_loss("dapo")
    for _ in range(2):
        for update in range(2):
            for rows in (slice(0, 1), slice(1, 4)):
                micro_batch(loss, update, rows)
    updates = list(read_record(asked).updates())
    assert [(update.step, update.update) for update in updates] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert read_record(asked).objective == make_objective("dapo").label()
    for update in updates:
        whole = TokenBatch(log_probs=new(update.update), old_log_probs=OLD, advantages=ADVANTAGES, mask=MASK)
        assert torch.equal(make_objective("dapo").loss(update.batch()), make_objective("dapo").loss(whole))
        # Nobody says which response answers which prompt, or what it earned.
        assert len(set(update.prompts.tolist())) == 4
        assert torch.tensor(update.rewards).isnan().all()


def test_ranks_are_merged_and_a_resumed_run_is_counted_on(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            loss = policy_loss("dapo")
            for update in range(2):
                micro_batch(loss, update, slice(None), dp_size=2)
    updates = list(read_record(asked).updates())
    assert [(update.step, update.update, len(update.lengths)) for update in updates] == [
        (1, 0, 8), (1, 1, 8), (2, 0, 8), (2, 1, 8),
    ]  # fmt: skip
    assert updates[0].token_count == updates[0].tokens == 34


def test_an_evaluation_is_not_written_down(asked: Path) -> None:
    policy_loss("dapo")(old_log_prob=OLD, log_prob=new(1), advantages=ADVANTAGES, response_mask=MASK)
    assert not asked.exists()


def test_a_rollout_ends_where_the_caller_says(tmp_path: Path) -> None:
    recording = VerlRecording(str(tmp_path), "dapo", updates=None)
    prompts = torch.tensor([[1, 2], [1, 2], [3, 4], [3, 4]])
    for update in range(4):
        batch = TokenBatch(log_probs=new(update), old_log_probs=OLD, advantages=ADVANTAGES, mask=MASK)
        recording.add(batch, {"global_batch_size": 4}, prompts=prompts, rewards=torch.ones(4), last=update % 2 == 1)
    updates = list(read_record(tmp_path).updates())
    assert [(update.step, update.update) for update in updates] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    first, second, third, fourth = updates[0].prompts.tolist()
    assert first == second != third == fourth
    assert updates[0].rewards.tolist() == [1.0] * 4


@pytest.mark.parametrize("updates", ["", "0", "many"])
def test_how_many_updates_has_to_be_said(asked: Path, monkeypatch: pytest.MonkeyPatch, updates: str) -> None:
    monkeypatch.setenv(UPDATES_VARIABLE, updates)
    with pytest.raises(ConfigError, match="expected the updates per rollout, train_batch_size / ppo_mini_batch_size"):
        policy_loss("dapo")
