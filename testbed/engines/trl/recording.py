"""What a trainer writes down of its updates, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from testbed.engines.trl.prompts import PromptNumbers
from testbed.engines.trl.step import OptimiserStep
from testbed.records import RecordWriter

__all__ = ["Recording", "settings_of"]


class Recording:
    """A trainer's record: each update as the objective read it, by this process's shards.

    Rollouts are counted from 1, the updates of each from 0.

    Args:
        writer: where it goes.
        numbers: of the prompts.
        micro_batches: that one rollout is trained on, over all its updates and passes.
        accumulated: micro-batches of an update.
    """

    def __init__(self, writer: RecordWriter, numbers: PromptNumbers, micro_batches: int, accumulated: int) -> None:
        self.writer, self._numbers = writer, numbers
        self._micro_batches, self._accumulated = micro_batches, accumulated

    def place(self, micro_batch: int) -> tuple[int, int]:
        """The rollout and the update that a micro-batch of the run belongs to."""
        rollout, within = divmod(micro_batch, self._micro_batches)
        return rollout + 1, within // self._accumulated

    def add(self, step: OptimiserStep, micro_batch: int) -> None:
        """Write down an optimiser step; `micro_batch` is the number of its last one."""
        rollout, update = self.place(micro_batch)
        for inputs, batch in zip(step.micro_batches, step.scored, strict=True):
            self.writer.add(
                batch,
                step=rollout,
                update=update,
                prompts=self._prompts(inputs["prompt_number"].tolist(), inputs["group"].tolist()),
                rewards=inputs["rewards"],
                responses=inputs["place"],
            )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write what is left when training ends; of a rollout that an error cut short, nothing more."""
        with self.writer:
            yield

    def _prompts(self, numbers: Sequence[int], groups: Sequence[int]) -> list[str]:
        # The rows of a streamed data set have no numbers; their groups are told apart within a rollout.
        return [
            f"group {group}" if number < 0 else str(self._numbers.names[number])
            for number, group in zip(numbers, groups, strict=True)
        ]


def settings_of(args: Any, advantage: str) -> dict[str, Any]:
    """What of TRL's configuration a reader of the record may want to know."""
    names = ("learning_rate", "num_generations", "num_iterations", "max_completion_length", "temperature", "seed")
    return {"advantage": advantage, **{name: getattr(args, name) for name in names}}
