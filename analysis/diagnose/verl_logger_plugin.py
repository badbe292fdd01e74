"""Imported by verl when `VERL_USE_EXTERNAL_MODULES` names it: every `Tracking` of that process is watched."""

from __future__ import annotations

import os
from typing import Any

from verl.utils.tracking import Tracking

from analysis.diagnose.verl_logger import watch

__all__: list[str] = []

_original = Tracking.__init__


def _watched(self: Any, project_name: str, experiment_name: str, *arguments: Any, **options: Any) -> None:
    _original(self, project_name, experiment_name, *arguments, **options)
    config = options.get("config", arguments[1] if len(arguments) > 1 else None)
    watch(self, config, os.environ.get("TESTBED_STOP_ON"))


Tracking.__init__ = _watched
