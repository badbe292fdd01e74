"""Checkpoints: what this project adds to TRL's, whether one is whole, and which of several a run goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from testbed.configuration import shown
from testbed.engines.folders import flaw
from testbed.errors import ConfigError
from testbed.reading import read_json

__all__ = ["Label", "load_converted", "newest_whole", "number_of", "required_whole", "rotate"]

STATE_FILE = "objective_state.pt"
LABEL_FILE = "objective.json"
_PREFIX = "checkpoint-"


class Label:
    """Which objective and advantages a checkpoint belongs to, and the files that say so.

    Args:
        objective: its label.
        advantage: the estimator, as it was asked for.
        process: number of this process; each has a state of its own.
    """

    def __init__(self, objective: str, advantage: str, process: int) -> None:
        self._described = {"objective": objective, "advantage": advantage}
        self._state_file = f"{process}_{STATE_FILE}"

    def save(self, folder: Path, state: Mapping[str, Any], first: bool) -> None:
        """Put this process's state beside TRL's files, and the label if it is the first one."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state), folder / self._state_file)
        if first:
            (folder / LABEL_FILE).write_text(json.dumps(self._described) + "\n", encoding="utf-8")

    def load(self, folder: Path, device: torch.device) -> dict[str, Any]:
        """This process's state.

        Raises:
            ConfigError: the checkpoint is another trainer's, of another number of processes, or of another objective.
        """
        label_file, state_file = folder / LABEL_FILE, folder / self._state_file
        if not label_file.exists() or not state_file.exists():
            raise ConfigError(
                f"{folder.name} has no {LABEL_FILE} and {state_file.name}; expected a checkpoint of ObjectiveTrainer "
                "saved by as many processes as resume it"
            )
        saved = read_json(label_file)
        if saved != self._described:
            raise ConfigError(
                f"{folder.name} belongs to {_said(saved)}; this run is {_said(self._described)}. Resume with the same "
                "objective, or start anew in another output folder"
            )
        state: dict[str, Any] = torch.load(state_file, map_location=device, weights_only=True)
        return state


def _said(label: Any) -> str:
    if not isinstance(label, Mapping):
        return shown(label)
    return f"{label.get('objective')} with {label.get('advantage')} advantages"


def number_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was saved; -1 for any other folder."""
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if checkpoint.name.startswith(_PREFIX) and number.isascii() and number.isdecimal() else -1


def _checkpoints(folder: Path) -> list[Path]:
    """All of a folder's, the newest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.is_dir() and number_of(path) >= 0]
    return sorted(found, key=number_of, reverse=True)


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of a folder that is whole; of newer ones it is said why they are passed over.

    Args:
        folder: where the checkpoints are.
        say: called with a sentence for each that is passed over.
    """
    for checkpoint in _checkpoints(folder):
        problem = flaw(checkpoint)
        if problem is None:
            return checkpoint
        say(f"{checkpoint.name} is passed over: {problem}")
    return None


def required_whole(checkpoint: Path) -> Path:
    """The checkpoint, if it is whole or another trainer's, about which `Label.load` has more to say.

    Raises:
        ConfigError: it is not whole.
    """
    of_another = (checkpoint / "trainer_state.json").exists() and not (checkpoint / LABEL_FILE).exists()
    problem = None if of_another else flaw(checkpoint)
    if problem is not None:
        raise ConfigError(f"cannot resume from {checkpoint}: {problem}. Resume from an older checkpoint")
    return checkpoint


def rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints beyond the limit; the newest whole one and the best one always stay.

    Args:
        folder: where the checkpoints are.
        limit: how many stay; `None` or 0: all.
        best: the path of one that stays.
    """
    if not limit or limit < 0:
        return
    whole = [checkpoint for checkpoint in _checkpoints(folder) if flaw(checkpoint) is None]
    kept = {*whole[:limit], *([Path(best)] if best else [])}
    for checkpoint in _checkpoints(folder):
        if checkpoint not in kept:
            shutil.rmtree(checkpoint, ignore_errors=True)


def load_converted(model: Any, checkpoint: Path) -> bool:
    """Load weights that are saved in another layout than the model's, as those of experts are; whether there were any.

    Transformers' trainer loads by name and passes over names it does not know: the experts of a resumed mixture of
    experts would be those it started with.
    """
    from safetensors import safe_open
    from transformers import PreTrainedModel

    index, weights = checkpoint / "model.safetensors.index.json", checkpoint / "model.safetensors"
    if not isinstance(model, PreTrainedModel) or not (index.is_file() or weights.is_file()):
        return False
    if index.is_file():
        names = set(read_json(index)["weight_map"])
    else:
        with safe_open(weights, framework="pt") as file:
            names = set(file.keys())
    if names <= set(model.state_dict()):
        return False
    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype).state_dict())
    return True
