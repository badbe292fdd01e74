"""What verl's workers write down of their updates: each rank shards of its own, merged when they are read.

A loss of verl's is called once a micro-batch and is not told where it stands. An update is therefore as many responses
as a mini-batch has on this rank, and a rollout as many updates as `TESTBED_VERL_UPDATES` says, or, for a `WorkerLoss`,
ends where verl steps its learning-rate schedule.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.records import RecordWriter

__all__ = ["RECORD_VARIABLE", "UPDATES_VARIABLE", "VerlRecording", "recording_asked_for"]

RECORD_VARIABLE = "TESTBED_VERL_RECORD"
"""Environment variable with the folder of a record, the same for every worker."""
UPDATES_VARIABLE = "TESTBED_VERL_UPDATES"
"""Environment variable with the updates per rollout: train_batch_size / ppo_mini_batch_size × ppo_epochs."""


class VerlRecording:
    """One worker's part of a record; a resumed run is counted on from what is on disk.

    Args:
        path: folder of the record.
        objective: label of the objective that trains.
        updates: updates per rollout; `None`: whoever adds them says which is the last.
    """

    def __init__(self, path: str, objective: str, updates: int | None) -> None:
        self._path, self._objective, self._updates = path, objective, updates
        self._writer: RecordWriter | None = None
        self._step, self._update, self._responses = 1, 0, 0

    def add(
        self,
        batch: TokenBatch,
        information: Mapping[str, Any],
        *,
        prompts: Tensor | None = None,
        rewards: Tensor | None = None,
        last: bool = False,
    ) -> None:
        """Write down a micro-batch.

        Args:
            batch: as the objective read it.
            information: verl's counts of the mini-batch.
            prompts: tokens of each response's prompt, `(B, P)`; `None`: nobody knows, and every response stands alone.
            rewards: `(B,)`; `None`: nobody knows.
            last: whether its update is the last one of the rollout, where that is known.
        """
        if self._writer is None:
            self._writer = RecordWriter(self._path, objective=self._objective, rank=_rank())
            self._step = 1 + self._writer.last_step
        count = len(batch.mask)
        places = range(self._responses, self._responses + count)
        missing = torch.full((count,), torch.nan)
        self._writer.add(
            batch,
            step=self._step,
            update=self._update,
            prompts=[f"{_rank()}-{self._update}-{place}" for place in places] if prompts is None else _names(prompts),
            rewards=missing if rewards is None else rewards,
        )
        self._responses += count
        size = information.get("global_batch_size")
        if size is None or self._responses >= int(size) // int(information.get("dp_size") or 1):
            self._update, self._responses = self._update + 1, 0
            if last or self._update == self._updates:
                # A worker may be killed without a word.
                self._writer.flush()
                self._step, self._update = self._step + 1, 0


def recording_asked_for(objective: str) -> VerlRecording | None:
    """The recording that the environment asks for.

    Raises:
        ConfigError: the number of updates per rollout is missing or no positive whole number.
    """
    path = os.environ.get(RECORD_VARIABLE)
    if not path:
        return None
    text = os.environ.get(UPDATES_VARIABLE, "")
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(
            f"{RECORD_VARIABLE} is {path!r} and {UPDATES_VARIABLE} is {text!r}; expected the updates per rollout, "
            "train_batch_size / ppo_mini_batch_size × ppo_epochs"
        )
    return VerlRecording(path, objective, int(text))


def _rank() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return int(os.environ.get("RANK", "0"))


def _names(prompts: Tensor) -> list[str]:
    return [hashlib.blake2b(row.numpy().tobytes(), digest_size=6).hexdigest() for row in prompts.cpu()]
