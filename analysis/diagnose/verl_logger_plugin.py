"""Imported by verl when `VERL_USE_EXTERNAL_MODULES` names it: every `Tracking` of that process is watched."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from analysis.diagnose.verl_logger import watch

__all__ = ["watch_every"]


def watch_every(tracking: Any) -> None:
    """Have every object of verl's class `Tracking` watched from its construction on."""
    original = tracking.__init__

    def watched(self: Any, project_name: str, experiment_name: str, *arguments: Any, **options: Any) -> None:
        original(self, project_name, experiment_name, *arguments, **options)
        config = options.get("config", arguments[1] if len(arguments) > 1 else None)
        watch(self, config, os.environ.get("TESTBED_STOP_ON"))

    tracking.__init__ = watched


if find_spec("verl") is not None:
    from verl.utils.tracking import Tracking

    watch_every(Tracking)
