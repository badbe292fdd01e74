"""The verl adapter, against verl's own loss function and its own plugin mechanism."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extras import needs

needs("verl")

from tensordict import TensorDict
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines import verl as adapter
from testbed.engines.verl import PREFIX, WorkerLoss, check_verl, policy_loss, register_objectives
from testbed.errors import BatchError, ConfigError, TestbedError
from testbed.objectives import make_objective
from testbed.records import read_record

# Other people's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = torch.tensor([6, 4, 2, 5])
PROMPT, WIDTH = 3, 6


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MASK = torch.arange(WIDTH) < LENGTHS.unsqueeze(1)
OLD = -draw(0, 4, WIDTH).abs() - 0.1
NEW = OLD + 0.4 * draw(1, 4, WIDTH)
ADVANTAGES = torch.tensor([[1.0], [-0.5], [2.0], [-1.5]], dtype=torch.float64).expand(4, WIDTH).contiguous()
ENTROPIES = draw(3, 4, WIDTH).abs() + 1
OLD_ENTROPIES = ENTROPIES * (1 + 0.05 * draw(4, 4, WIDTH))


def actor_config(**settings: Any) -> Any:
    from verl.workers.config import ActorConfig, PolicyLossConfig

    mode = settings.pop("loss_mode", "vanilla")
    return ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=PolicyLossConfig(loss_mode=mode),
        **settings,
    )


def mini_batch(**extra: Any) -> TensorDict:
    attention = torch.cat([torch.ones(4, PROMPT), MASK], dim=1).long()
    tensors = {
        "prompts": torch.ones(4, PROMPT).long(),
        "responses": torch.ones(4, WIDTH).long(),
        "attention_mask": attention,
        "response_mask": MASK.long(),
        "old_log_probs": OLD,
        "advantages": ADVANTAGES,
        **{name: value for name, value in extra.items() if isinstance(value, Tensor)},
    }
    data = TensorDict(tensors, batch_size=[4])
    counts = {"dp_size": 1, "batch_num_tokens": int(MASK.sum()), "global_batch_size": 4}
    for name, value in (counts | {key: value for key, value in extra.items() if not isinstance(value, Tensor)}).items():
        data.set_non_tensor(name, value)
    return data


def packed(values: Tensor) -> Tensor:
    """What verl's model returns: one row per token, prompts included, each value one position before its token."""
    rows = []
    for row, length in zip(values, LENGTHS.tolist(), strict=True):
        rows.append(torch.cat([row.new_zeros(PROMPT - 1), row[:length], row.new_zeros(1)]))
    return torch.cat(rows)


def test_a_worker_loss_equals_verls_own() -> None:
    from verl.workers.utils.losses import ppo_loss

    results = []
    for loss in (partial(ppo_loss, config=actor_config()), WorkerLoss("ppo(dual_clip=3.0)")):
        new = NEW.clone().requires_grad_()
        value, _ = loss(model_output={"log_probs": packed(new)}, data=mini_batch())
        results.append((value.detach(), torch.autograd.grad(value, new)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-15)
    assert results[0][1].abs().sum() > 0.1


def test_a_worker_loss_writes_down_what_the_mini_batch_has(tmp_path: Path) -> None:
    loss = pickle.loads(pickle.dumps(WorkerLoss("erc", record=str(tmp_path / "record"))))
    scores = torch.zeros(4, WIDTH, dtype=torch.float64)
    scores[:, 0] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for last in (False, True):
        data = mini_batch(entropy=OLD_ENTROPIES, token_level_scores=scores, update_lr_scheduler=last)
        output = {"log_probs": packed(NEW.clone().requires_grad_()), "entropy": packed(ENTROPIES)}
        loss(model_output=output, data=data)
    updates = list(read_record(tmp_path / "record").updates())
    assert [(update.step, update.update) for update in updates] == [(1, 0), (1, 1)]
    assert updates[0].rewards.tolist() == [1.0, 0.0, 1.0, 0.0]
    # All four prompts of the mini-batch are the same tokens.
    assert len(set(updates[0].prompts.tolist())) == 1
    batch = updates[0].batch()
    torch.testing.assert_close(batch.old_entropies[batch.mask], OLD_ENTROPIES[MASK].float())
    torch.testing.assert_close(batch.entropies[batch.mask], ENTROPIES[MASK].float())


@pytest.mark.parametrize("loss_mode", ["dcpo", "ce_gppo", "sapo", "gspo"])
def test_a_registered_loss_runs_inside_verls_own(loss_mode: str) -> None:
    from verl.workers.utils.losses import ppo_loss

    register_objectives()
    new = NEW.clone().requires_grad_()
    value, metrics = ppo_loss(
        config=actor_config(loss_mode=f"{PREFIX}{loss_mode}"),
        model_output={"log_probs": packed(new)},
        data=mini_batch(),
    )
    mine = NEW.clone().requires_grad_()
    expected = make_objective(loss_mode).loss(
        TokenBatch(log_probs=mine, old_log_probs=OLD, advantages=ADVANTAGES, mask=MASK)
    )
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(
        torch.autograd.grad(value, new)[0], torch.autograd.grad(expected, mine)[0], rtol=1e-12, atol=1e-15
    )
    assert "actor/kl/old" in metrics


def test_micro_batches_and_processes_add_up() -> None:
    # Two processes of two micro-batches, each scaled by the number of processes: averaged, they are the whole.
    information = {"dp_size": 2, "batch_num_tokens": int(MASK.sum()), "global_batch_size": 4, "loss_scale_factor": None}
    config = actor_config()
    config.global_batch_info.update(information)
    for name in ("dapo", "grpo", "dcpo"):
        loss = policy_loss(name)
        arguments = {"old_log_prob": OLD, "log_prob": NEW, "advantages": ADVANTAGES, "response_mask": MASK}
        whole, _ = loss(**arguments)
        parts = [
            loss(**{key: value[i : i + 1] for key, value in arguments.items()}, config=config)[0] for i in range(4)
        ]
        torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-12, atol=1e-15)


def test_rollout_weights_multiply_the_token_loss() -> None:
    weights = draw(5, 4, WIDTH).abs().clamp(max=2.0)
    value, _ = policy_loss("dapo")(
        old_log_prob=OLD, log_prob=NEW, advantages=ADVANTAGES, response_mask=MASK, rollout_is_weights=weights
    )
    batch = TokenBatch(log_probs=NEW, old_log_probs=OLD, advantages=ADVANTAGES, mask=MASK)
    expected = (make_objective("dapo")(batch).token_loss * weights).sum() / MASK.sum()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_erc_gets_both_entropies() -> None:
    value, metrics = WorkerLoss("erc(base=ppo)")(
        model_output={"log_probs": packed(NEW), "entropy": packed(ENTROPIES)}, data=mini_batch(entropy=OLD_ENTROPIES)
    )
    expected = make_objective("erc(base=ppo)")(
        TokenBatch(
            log_probs=NEW,
            old_log_probs=OLD,
            advantages=ADVANTAGES,
            mask=MASK,
            entropies=ENTROPIES,
            old_entropies=OLD_ENTROPIES,
        )
    )
    torch.testing.assert_close(value, expected.loss, rtol=1e-12, atol=0)
    masked = metrics["actor/erc/masked_fraction"]
    assert masked == pytest.approx(expected.metrics["erc/masked_fraction"].item())
    assert 0 < masked < 1


def test_erc_says_what_is_missing() -> None:
    loss = WorkerLoss("erc")
    with pytest.raises(BatchError, match="old_entropies missing from the batch"):
        loss(model_output={"log_probs": packed(NEW), "entropy": packed(ENTROPIES)}, data=mini_batch())


def test_a_worker_loss_travels_to_the_workers() -> None:
    assert pickle.loads(pickle.dumps(WorkerLoss("erc(base=gppo)"))).resolved == make_objective("erc(base=gppo)")


def test_an_objective_of_the_whole_batch_refuses_a_part() -> None:
    loss = WorkerLoss("bapo")
    assert torch.isfinite(loss(model_output={"log_probs": packed(NEW)}, data=mini_batch())[0])
    with pytest.raises(ConfigError, match="bapo reads all tokens of a mini-batch at once, and got 17 of 34"):
        loss(model_output={"log_probs": packed(NEW)}, data=mini_batch(batch_num_tokens=34))


def test_rejects_an_objective_that_needs_more() -> None:
    with pytest.raises(ConfigError, match=r"erc needs entropies, old_entropies.*set_loss_fn"):
        policy_loss("erc")


def test_rejects_another_mean_than_the_objectives() -> None:
    loss = policy_loss("dapo")
    with pytest.raises(ConfigError, match="loss_agg_mode=seq-mean-token-sum would have no effect"):
        loss(OLD, NEW, ADVANTAGES, MASK, loss_agg_mode="seq-mean-token-sum")


def test_names_and_parameters_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "objectives.yaml"
    path.write_text("narrow: dapo(clip_high=0.01)\n")
    monkeypatch.setenv(adapter.FILE_VARIABLE, str(path))
    assert "narrow" in register_objectives()
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    value, _ = POLICY_LOSS_REGISTRY["narrow"](OLD, NEW, ADVANTAGES, MASK)
    batch = TokenBatch(log_probs=NEW, old_log_probs=OLD, advantages=ADVANTAGES, mask=MASK)
    assert value == make_objective("dapo", clip_high=0.01).loss(batch)
    assert value != make_objective("dapo").loss(batch)


def test_rejects_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(adapter.FILE_VARIABLE, "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"TESTBED_VERL_OBJECTIVES is 'nowhere\.yaml'"):
        register_objectives()


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which this package's entry point is installed, as pip would have it."""
    package = tmp_path / "policy_objective_testbed-0.1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: policy-objective-testbed\nVersion: 0.1.0\n")
    (package / "entry_points.txt").write_text("[verl.plugins]\ntestbed = testbed.engines.verl_plugin\n")
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}


def run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # Elsewhere than in the repository: an editable install leaves its own metadata there.
    folder = environment["PYTHONPATH"].split(os.pathsep)[0]
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


CHECK = "import verl\nfrom testbed.engines.verl import check_verl\nprint('\\n'.join(check_verl()))"


@pytest.mark.slow
def test_verl_finds_the_plugin_by_itself(installed: dict[str, str]) -> None:
    done = run(CHECK, installed)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "loaded the entry point testbed = testbed.engines.verl_plugin" in done.stdout
    for name in ("testbed_dcpo", "testbed_ce_gppo", "testbed_bapo"):
        assert name in done.stdout
    assert "testbed_erc" not in done.stdout


@pytest.mark.slow
def test_a_plugin_that_verl_swallowed_is_noticed(installed: dict[str, str]) -> None:
    done = run(CHECK, installed | {"VERL_USE_EXTERNAL_PLUGINS": "none"})
    assert done.returncode != 0
    assert "lacks testbed_aspo" in done.stderr


def test_says_when_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.metadata, "entry_points", lambda group: ())
    with pytest.raises(TestbedError, match=r"no entry point of this package in the group verl\.plugins"):
        check_verl()
