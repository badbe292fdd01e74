"""What the trainer writes down is what the objective was given; a resumed run and several processes give one record."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.extras import needs

needs("trl")
needs("peft")

from models.causal_lm import load_causal_lm
from testbed.batch import TokenBatch
from testbed.engines.trl import ObjectiveTrainer, RecordCallback
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.records import RecordedUpdate, read_record
from tests.engines.test_trl import TRL_ADVANTAGE, build

pytestmark = pytest.mark.filterwarnings("ignore")

NUMBERS = ("log_probs", "old_log_probs", "entropies", "old_entropies", "kappas", "old_kappas")


def recorded(folder: Path) -> list[RecordedUpdate]:
    return list(read_record(folder).updates())


def train(objective: str, folder: Path, resume: str | None = None, **settings: Any) -> list[tuple[Any, TokenBatch]]:
    """A run with a record in `folder/record`; every step with its batch."""
    seen: list[tuple[Any, TokenBatch]] = []
    original = ObjectiveTrainer._finish_step

    def note(self: Any, step: Any, batch: TokenBatch) -> None:
        original(self, step, batch)
        seen.append((step, batch))

    trainer = build(objective, folder, record=folder / "record", **settings)
    trainer._finish_step = note.__get__(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return seen


@pytest.mark.parametrize("objective", ["dapo", "bapo"])
def test_every_update_is_written_as_the_objective_read_it(tmp_path: Path, objective: str) -> None:
    steps = train(objective, tmp_path)
    updates = recorded(tmp_path / "record")
    # Two updates a rollout, two micro-batches an update.
    assert [(update.step, update.update) for update in updates] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for update, (step, batch) in zip(updates, steps, strict=True):
        again = update.batch()
        for name in NUMBERS:
            width = again.mask.shape[1]
            assert torch.equal(getattr(again, name), getattr(batch, name)[:, :width]), name
        results = []
        for given in (batch, again):
            leaf = given.log_probs.detach().clone().requires_grad_()
            loss = make_objective(objective).loss(given.with_current(leaf))
            results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0][:, :width]))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        assert update.rewards.tolist() == torch.cat([inputs["rewards"] for inputs in step.micro_batches]).tolist()
        # Groups of four, and the same responses in both updates of a rollout.
        assert np.unique(update.prompts, return_counts=True)[1].tolist() == [4, 4]
        assert sorted(update.responses) == list(range(8))
    assert read_record(tmp_path / "record").objective == make_objective(objective).label()


def test_kappas_are_those_of_the_model(tmp_path: Path) -> None:
    seen = train("dapo", tmp_path, max_steps=1)
    ((step, _),) = seen
    inputs = step.micro_batches[0]
    model, _ = load_causal_lm("qwen2-0.1m")
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    width = inputs["completion_ids"].shape[1]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1].double()
    log_p = logits.log_softmax(-1)
    entropies = -(log_p.exp() * log_p).sum(-1, keepdim=True)
    expected = (log_p.exp().square() * (log_p + entropies)).sum(-1)
    batch = step.scored[0]
    own = batch.mask[:, :width]
    assert own.sum() > 8
    torch.testing.assert_close(batch.kappas[:, :width][own].double(), expected[own], rtol=0, atol=2e-6)
    torch.testing.assert_close(batch.old_kappas[:, :width][own].double(), expected[own], rtol=0, atol=2e-6)


def test_nothing_is_asked_of_the_head_without_a_record(tmp_path: Path) -> None:
    trainer = build("dapo", tmp_path, max_steps=1)
    trainer.train()
    assert trainer.optimiser_step.scored[0].kappas is None
    assert trainer.optimiser_step.scored[0].old_entropies is None


def test_an_objective_that_reads_kappas_can_be_trained(tmp_path: Path) -> None:
    trainer = build("clip_v", tmp_path)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["update/refused"] for entry in log] == [0.0] * 4


def test_an_objective_that_reads_kappas_is_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clip_v reads κ of every position, which TRL's head does not give"):
        build("clip_v", tmp_path, cast_lm_head_to_fp32=True)


def test_a_run_resumed_within_a_rollout_continues_its_record(tmp_path: Path) -> None:
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}
    train("dapo", tmp_path / "whole", **settings)
    train("dapo", tmp_path / "cut", **{**settings, "max_steps": 4})
    # Steps 1 and 2 are the first rollout, 3 and 4 the second: the checkpoint lies within it.
    train("dapo", tmp_path / "cut", resume=str(tmp_path / "cut" / "checkpoint-3"), **settings)
    whole, cut = (recorded(tmp_path / name / "record") for name in ("whole", "cut"))
    assert [(update.step, update.update) for update in cut] == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    for one, other in zip(cut, whole, strict=True):
        for name in NUMBERS:
            np.testing.assert_array_equal(one.numbers[name], other.numbers[name])


def test_a_run_that_starts_anew_does_not_continue_a_record(tmp_path: Path) -> None:
    train("dapo", tmp_path, max_steps=2)
    trainer = build("dapo", tmp_path, record=tmp_path / "record")
    with pytest.raises(ConfigError, match="holds a record already; give a run that starts anew another folder"):
        trainer.train()


def test_thinned_by_rollouts(tmp_path: Path) -> None:
    train("dapo", tmp_path, record_every=2, max_steps=8)
    assert [update.step for update in recorded(tmp_path / "record")] == [2, 2, 4, 4]


def test_an_error_leaves_whole_rollouts(tmp_path: Path) -> None:
    calls: list[int] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the grader is gone")
        return [float(sum(ids) % 7) for ids in completion_ids]

    with pytest.raises(OSError, match="the grader is gone"):
        train("dapo", tmp_path, max_steps=8, reward_funcs=reward)
    assert {update.step for update in recorded(tmp_path / "record")} == {1}


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_callback_writes_what_trls_own_trainer_trains_on(tmp_path: Path, iterations: int) -> None:
    # The same run once with TRL's loss and the callback, once with ours: the same numbers are written down.
    settings: dict[str, Any] = {"num_iterations": iterations, "max_steps": 3, "learning_rate": 1e-4}
    theirs = build(None, tmp_path / "theirs", loss_type="dapo", epsilon_high=0.28, **settings)
    theirs.add_callback(RecordCallback(theirs, tmp_path / "theirs" / "record", objective="dapo"))
    theirs.train()
    ours = build("dapo", tmp_path / "ours", advantage=TRL_ADVANTAGE, record=tmp_path / "ours" / "record", **settings)
    ours.train()
    pairs = zip(recorded(tmp_path / "theirs" / "record"), recorded(tmp_path / "ours" / "record"), strict=True)
    seen = 0
    for one, other in pairs:
        seen += 1
        assert (one.step, one.update, one.token_count) == (other.step, other.update, other.token_count)
        for name in ("log_probs", "old_log_probs", "entropies"):
            np.testing.assert_allclose(one.numbers[name], other.numbers[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.advantages, other.advantages, rtol=1e-5, atol=1e-6)
        assert one.rewards.tolist() == other.rewards.tolist()
        assert one.responses.tolist() == other.responses.tolist()
        assert np.unique(one.prompts, return_inverse=True)[1].tolist() in (
            np.unique(other.prompts, return_inverse=True)[1].tolist(),
            (1 - np.unique(other.prompts, return_inverse=True)[1]).tolist(),
        )
        # TRL scores the old policy only where it is another one, and then without entropies.
        assert ("old_entropies" in one.numbers) == (iterations == 1)
    assert seen == 3


def test_a_callback_does_not_continue_another_runs_record(tmp_path: Path) -> None:
    for expected in (None, "holds a record already"):
        trainer = build(None, tmp_path, max_steps=1)
        trainer.add_callback(RecordCallback(trainer, tmp_path / "record"))
        with contextlib.nullcontext() if expected is None else pytest.raises(ConfigError, match=expected):
            trainer.train()


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
sys.path[:0] = [{root!r}]
import tests.engines.test_trl as here
folder = Path({folder!r})
trainer = here.build("dapo", folder, per_device_train_batch_size=2, max_steps=4, record=folder / "record")
trainer.train()
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_write_shards_that_are_merged(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        done = subprocess.run(
            [*launch, str(script)], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        # Rarely gloo itself aborts a process; what is read below is the record of a run that finished.
        if "SIGABRT" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name[:9] for path in (tmp_path / "record").glob("*.parquet")} == {"shard-000", "shard-001"}
    updates = recorded(tmp_path / "record")
    assert [(update.step, update.update) for update in updates] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for update in updates:
        assert sorted(update.responses) == list(range(8))
        assert np.unique(update.prompts, return_counts=True)[1].tolist() == [4, 4]
        assert update.token_count == update.tokens
