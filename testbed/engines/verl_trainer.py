"""verl's synchronous trainer with an objective of this project as the whole loss of the actor's workers.

For what a policy loss of verl's does not get to see: entropies (ERC, an entropy bonus) or a reference. Import it in
every process with `VERL_USE_EXTERNAL_MODULES=testbed.engines.verl_trainer`, and choose it by

    trainer.v1.trainer_mode=testbed '+trainer.v1.testbed.objective="erc(base=gppo)"'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed.engines.verl import WorkerLoss
from testbed.errors import ConfigError

try:
    from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
except ModuleNotFoundError as error:
    # Tools that import every module to read it work without verl.
    if error.name != "verl":
        raise
    PPOTrainerSync = object

    def register_trainer(name: str) -> Callable[[type], type]:
        """Nothing to register with."""
        return lambda trainer: trainer


__all__ = ["MODE", "ObjectiveTrainer"]

MODE = "testbed"
"""The trainer's name for `trainer.v1.trainer_mode`."""


@register_trainer(MODE)
class ObjectiveTrainer(PPOTrainerSync):  # type: ignore[misc]
    """`PPOTrainerSync` whose actor workers are given `WorkerLoss(config.trainer.v1.testbed.objective)`.

    Raises:
        ConfigError: when made, `trainer.v1.testbed.objective` is missing, or the objective reads entropies and
            `actor_rollout_ref.actor.calculate_entropy` is off.
    """

    def __init__(self, config: Any) -> None:
        self._loss = chosen_loss(config)
        super().__init__(config)

    def on_init_end(self) -> None:
        """Called by verl when the workers exist and hold their weights."""
        super().on_init_end()
        self.actor_rollout_wg.set_loss_fn(self._loss)


def chosen_loss(config: Any) -> WorkerLoss:
    """The loss a configuration asks for."""
    objective = (config.trainer.v1.get(MODE) or {}).get("objective")
    if not objective:
        raise ConfigError(f"trainer.v1.{MODE}.objective is missing; name one, such as +trainer.v1.{MODE}.objective=erc")
    loss = WorkerLoss(str(objective))
    if "entropies" in loss.resolved.needs and not config.actor_rollout_ref.actor.calculate_entropy:
        raise ConfigError(
            f"{loss.resolved.label()} reads entropies, and actor_rollout_ref.actor.calculate_entropy is off; set it to "
            "True"
        )
    return loss
