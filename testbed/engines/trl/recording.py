"""What a trainer writes down of its updates, token by token: ours by itself, TRL's own through a callback."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from testbed.batch import TokenBatch
from testbed.engines.trl.installed import TrainerCallback, require_trl
from testbed.engines.trl.prompts import PromptNumbers
from testbed.engines.trl.rounds import weighted_rewards
from testbed.engines.trl.step import Scored, response_mask, token_batch
from testbed.errors import BatchError, ConfigError
from testbed.records import RecordWriter

__all__ = ["RecordCallback", "Recording", "names_of_numbers", "settings_of"]

_log = logging.getLogger(__name__)

Inputs = Mapping[str, Any]


class Recording:
    """A trainer's record: each update as the objective read it, by this process's shards.

    Rollouts are counted from 1, the updates of each from 0.

    Args:
        writer: where it goes.
        names: what the prompts of a micro-batch are called, one per response.
        micro_batches: that one rollout is trained on, over all its updates and passes.
        accumulated: micro-batches of an update.
    """

    def __init__(
        self, writer: RecordWriter, names: Callable[[Inputs], list[str]], micro_batches: int, accumulated: int
    ) -> None:
        self.writer, self._names = writer, names
        self._micro_batches, self._accumulated = micro_batches, accumulated

    def place(self, micro_batch: int) -> tuple[int, int]:
        """The rollout and the update that a micro-batch of the run belongs to."""
        rollout, within = divmod(micro_batch, self._micro_batches)
        return rollout + 1, within // self._accumulated

    def add(self, micro_batches: Sequence[Inputs], scored: Sequence[TokenBatch], last: int) -> None:
        """Write down an update.

        Args:
            micro_batches: this process's, with `rewards` and `place`, the number of each response in its rollout.
            scored: the same as the objective read them.
            last: number of the last of them in the run.
        """
        rollout, update = self.place(last)
        for inputs, batch in zip(micro_batches, scored, strict=True):
            self.writer.add(
                batch,
                step=rollout,
                update=update,
                prompts=self._names(inputs),
                rewards=inputs["rewards"],
                responses=inputs["place"],
            )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write what is left when training ends; of a rollout that an error cut short, nothing more."""
        with self.writer:
            yield

    def start_anew(self) -> None:
        """Refuse to go on with the record of another run.

        Raises:
            ConfigError: the folder holds one.
        """
        if self.writer.continues:
            raise ConfigError(
                f"{self.writer.path} holds a record already; give a run that starts anew another folder, or resume the "
                "run that it is of"
            )


def names_of_numbers(numbers: PromptNumbers) -> Callable[[Inputs], list[str]]:
    """What prompts are called: by their `prompt_id`, or by their group where a data set is streamed."""

    def names(inputs: Inputs) -> list[str]:
        pairs = zip(inputs["prompt_number"].tolist(), inputs["group"].tolist(), strict=True)
        return [f"group {group}" if number < 0 else str(numbers.names[number]) for number, group in pairs]

    return names


def settings_of(args: Any, advantage: str = "") -> dict[str, Any]:
    """What of TRL's configuration a reader of the record may want to know."""
    names = ("learning_rate", "num_generations", "num_iterations", "max_completion_length", "temperature", "seed")
    return {"advantage": advantage, **{name: getattr(args, name) for name in names}}


class RecordCallback(TrainerCallback):
    """Writes down what TRL's own `GRPOTrainer` trains on; nothing of the training changes.

        trainer.add_callback(RecordCallback(trainer, "runs/mine/record"))

    κ is not written, because TRL's head does not give it; entropies of the old policy only where an update is made by
    the policy that wrote the tokens. A run that is resumed continues its record.

    Args:
        trainer: TRL's `GRPOTrainer`.
        path: folder of the record.
        every: only rollouts whose number is a multiple of it.
        share: about this share of the prompts of each rollout, in (0, 1].
        objective: the objective of this project that TRL's loss is, such as `dapo`; empty: unknown.

    Raises:
        ConfigError: TRL is not installed, or `every` or `share` is out of its range.
        StorageError: the folder holds something else.
    """

    def __init__(
        self, trainer: Any, path: str | Path, *, every: int = 1, share: float = 1.0, objective: str = ""
    ) -> None:
        require_trl()
        self._trainer = trainer
        args = trainer.args
        writer = RecordWriter(
            path,
            every=every,
            share=share,
            objective=objective,
            settings={"loss_type": args.loss_type, **settings_of(args)},
            rank=trainer.accelerator.process_index,
        )
        micro_batches = args.steps_per_generation * args.num_iterations
        self._recording = Recording(writer, self._names_of, micro_batches, args.gradient_accumulation_steps)
        self._names: list[str] = []
        self._rewards = torch.empty(0)
        self._scored: Scored | None = None
        self._parts: list[tuple[Inputs, Scored]] = []
        for name, note in (
            ("_calculate_rewards", self._note_rewards),
            ("_generate_and_score_completions", self._note_responses),
            ("_get_per_token_logps_and_entropies", self._note_scores),
            ("_compute_loss", self._note_micro_batch),
        ):
            setattr(trainer, name, _followed(getattr(trainer, name), note))

    # -- what TRL does, seen from beside ---------------------------------------------------------------------------

    def _note_rewards(self, per_function: Any, *_: Any) -> None:
        self._rewards = weighted_rewards(per_function, self._trainer.reward_weights)

    def _note_responses(self, output: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        if not self._trainer.model.training:
            return
        rows = len(output["completion_ids"])
        first = self._trainer.accelerator.process_index * rows
        places = torch.arange(first, first + rows, device=output["completion_ids"].device)
        output["place"], output["group"] = places, places // self._trainer.num_generations
        output["rewards"] = self._rewards[first : first + rows]
        self._names = [str(row.get("prompt_id", row["prompt"])) for row in inputs]

    def _names_of(self, inputs: Inputs) -> list[str]:
        first = self._trainer.accelerator.process_index * len(self._names)
        return [self._names[place - first] for place in inputs["place"].tolist()]

    def _note_scores(self, results: Any, *_: Any, **__: Any) -> None:
        log_probs, entropies, auxiliary = results
        if entropies is not None:
            self._scored = Scored(log_probs.detach(), entropies.detach(), auxiliary)

    def _note_micro_batch(self, _: Any, model: Any, inputs: Inputs) -> None:
        if self._trainer.model.training and self._scored is not None and "place" in inputs:
            self._parts.append((inputs, self._scored))

    # -- what transformers calls -----------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A run that starts at step 0 starts a record."""
        if state.global_step == 0:
            self._recording.start_anew()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All micro-batches of an update have been seen."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        lengths = torch.cat([response_mask(inputs).sum(1) for inputs, _ in parts])
        counts = torch.stack([lengths.sum(), (lengths > 0).sum()])
        tokens, sequences = self._trainer.accelerator.reduce(counts, reduction="sum").unbind()
        of_step = {"token_count": tokens, "sequence_count": sequences}
        try:
            batches = [token_batch(inputs, scored, 0, of_step) for inputs, scored in parts]
        except BatchError as problem:
            _log.warning("step %d is not recorded: %s", state.global_step + 1, problem)
            return
        # TRL has counted the last micro-batch already.
        self._recording.add([inputs for inputs, _ in parts], batches, self._trainer._step - 1)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A run goes on from a checkpoint, and what came before would be missing."""
        self._recording.writer.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what is left."""
        self._recording.writer.flush()


def _followed(method: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def both(*arguments: Any, **settings: Any) -> Any:
        result = method(*arguments, **settings)
        note(result, *arguments, **settings)
        return result

    return both
