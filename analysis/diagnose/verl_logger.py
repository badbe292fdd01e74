"""The rules as a logger of verl.

In a script: `watch(tracking)` on the run's `verl.utils.tracking.Tracking`. From the command line, without one:
`VERL_USE_EXTERNAL_MODULES=analysis.diagnose.verl_logger_plugin`, and `TESTBED_STOP_ON=problem` to stop on problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.live import LiveDiagnosis
from testbed.errors import TestbedError

__all__ = ["RunStopped", "VerlLogger", "watch"]


class RunStopped(TestbedError, RuntimeError):
    """A rule that was asked to stop the run has found what it looks for."""


class VerlLogger:
    """What `Tracking` calls at every step, like any of its back ends.

    Args:
        config: the run's configuration, nested as hydra has it.
        stop_on: a level, or ids of rules, at which `log` raises `RunStopped`; `None`: never.
        **options: of `LiveDiagnosis`.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, stop_on: Any = None, **options: Any) -> None:
        self.live = LiveDiagnosis(config, stop_on=stop_on, **options)

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Take a row.

        Raises:
            RunStopped: a rule of `stop_on` has found something.
        """
        self.live.update(step, data)
        found = self.live.stopped_by
        if found is not None:
            raise RunStopped(f"stopped at step {step}: {found.title} [{found.id}]. {found.statement}")


def watch(tracking: Any, config: Any = None, stop_on: Any = None, **options: Any) -> VerlLogger:
    """Add the rules to the loggers of a `Tracking`."""
    made = VerlLogger(_plain(config), stop_on, **options)
    tracking.logger["testbed"] = made
    return made


def _plain(config: Any) -> Any:
    if config is None or isinstance(config, dict | str):
        return config
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=False)
