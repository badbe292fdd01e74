"""The rules as a callback of TRL's trainers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from analysis.diagnose.live import LiveDiagnosis

__all__ = ["TestbedCallback"]


class TestbedCallback(TrainerCallback):
    """Watch a run of TRL: `GRPOTrainer(…, callbacks=[TestbedCallback(stop_on="problem")])`.

    The trainer's arguments are the configuration. Every process keeps its own numbers; the first one speaks and stops
    the training.

    Args:
        stop_on: a level, or ids of rules, at which the training is stopped after the step; `None`: never.
        **options: of `LiveDiagnosis`.
    """

    # The name starts with "Test": keep pytest from collecting it.
    __test__ = False

    def __init__(self, stop_on: Any = None, **options: Any) -> None:
        self._options = {"stop_on": stop_on, **options}
        self.live = LiveDiagnosis(**self._options)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read the trainer's arguments."""
        self.live = LiveDiagnosis(**({"config": _arguments(args)} | self._options))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Take a row; ask for the end of the training where that is wanted."""
        if logs and state.is_world_process_zero:
            self.live.update(state.global_step, logs)
            if self.live.should_stop:
                control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look once more, now that it costs the training nothing."""
        if state.is_world_process_zero:
            self.live.look()


def _arguments(args: Any) -> dict[str, Any]:
    given = args.to_dict() if hasattr(args, "to_dict") else dict(vars(args))
    plain = {key: value for key, value in given.items() if isinstance(value, str | int | float | bool)}
    return plain | {"num_processes": getattr(args, "world_size", 1)}
