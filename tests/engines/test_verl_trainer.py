"""verl's trainer with a whole loss of ours: that verl finds it and its workers get the loss, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.extras import needs

needs("verl")
needs("transfer_queue")

from omegaconf import OmegaConf

from testbed.engines.verl import WorkerLoss
from testbed.errors import ConfigError

# Other people's deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")


def config(objective: str | None, entropy: bool = True) -> Any:
    own = {} if objective is None else {"testbed": {"objective": objective}}
    return OmegaConf.create({"trainer": {"v1": own}, "actor_rollout_ref": {"actor": {"calculate_entropy": entropy}}})


def test_verl_finds_the_trainer() -> None:
    code = "import verl; from verl.trainer.ppo.v1 import get_trainer_cls; print(get_trainer_cls('testbed').__module__)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VERL_USE_EXTERNAL_MODULES": "testbed.engines.verl_trainer"},
    )
    assert done.stdout.strip() == "testbed.engines.verl_trainer", done.stderr


def test_the_workers_get_the_loss_after_verls_own_start() -> None:
    from testbed.engines.verl_trainer import ObjectiveTrainer, chosen_loss

    calls: list[Any] = []
    trainer = object.__new__(ObjectiveTrainer)
    trainer._loss = chosen_loss(config("erc(base=gppo)"))
    trainer.global_steps = 7
    trainer.checkpoint_manager = SimpleNamespace(update_weights=lambda step: calls.append(step))
    trainer.actor_rollout_wg = SimpleNamespace(set_loss_fn=lambda loss: calls.append(loss))
    trainer.on_init_end()
    assert calls == [7, WorkerLoss("erc(base=gppo)")]


def test_rejects_a_missing_objective() -> None:
    from testbed.engines.verl_trainer import chosen_loss

    settings = config(None)
    with pytest.raises(ConfigError, match=r"trainer\.v1\.testbed\.objective is missing"):
        chosen_loss(settings)


def test_rejects_entropies_that_are_not_computed() -> None:
    from testbed.engines.verl_trainer import chosen_loss

    settings = config("erc", entropy=False)
    with pytest.raises(ConfigError, match="calculate_entropy is off"):
        chosen_loss(settings)
    assert chosen_loss(config("dcpo", entropy=False)).resolved.label() == "dcpo"
