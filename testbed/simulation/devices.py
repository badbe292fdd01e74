"""Where tensors of a run are: names of devices, and what has to be moved there."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from envs.automaton import Automaton
from models.policy import Episodes
from testbed.errors import ConfigError
from testbed.objectives import Objective

__all__ = ["check_device", "episodes_on", "on_device"]


def check_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: no such device, or none on this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()
    except Exception as error:
        # Every backend that is not there says so in its own way.
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device is {name!r}, which cannot be used here ({reason}); expected 'cpu', or an accelerator that torch "
            "finds, such as 'cuda'"
        ) from error
    return device


def episodes_on(spec: Automaton, device: torch.device) -> Episodes:
    """An environment as a policy on that device sees it."""
    there = spec.to(device)
    return Episodes(there.initial_states, there.step, there.horizon)


def on_device(objective: Objective, device: torch.device) -> Objective:
    """The objective with its tensors on a device."""
    moved: dict[str, Any] = {}
    for item in fields(objective):
        value = getattr(objective, item.name)
        if isinstance(value, Tensor):
            moved[item.name] = value.to(device)
        elif isinstance(value, Objective):
            moved[item.name] = on_device(value, device)
    return replace(objective, **moved) if moved else objective
