"""Prompts: a number for each that outlasts orders and data sets, the order they come in, and how they are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.prompts import encode_prompts, plain_prompt
from testbed.configuration import shown
from testbed.engines.trl.installed import RepeatSampler
from testbed.errors import BatchError, ConfigError

__all__ = ["EpochSampler", "PromptNumbers", "PromptReader", "with_empty_responses"]

UNKNOWN = -1
"""The number of a prompt that is in no list."""


class PromptNumbers:
    """A number for each distinct `prompt_id` of a data set, in order of appearance.

    Args:
        dataset: as TRL takes it; without a column `prompt_id`, a row's position names its prompt.
        needed: whether prompts are remembered or drawn from, which a streamed data set does not allow.

    Attributes:
        dataset: the data set with a column `prompt_id`.

    Raises:
        ConfigError: the data set is empty, or streamed although numbers are needed.
    """

    def __init__(self, dataset: Any, needed: bool) -> None:
        self.dataset, self._numbers = dataset, dict[Any, int]()
        if not hasattr(dataset, "__len__"):
            if needed:
                raise ConfigError(
                    "a streamed data set has no list of prompts to remember or draw from; expected a data set of "
                    "known length for smooth_standardised advantages and dynamic sampling"
                )
            return
        if len(dataset) == 0:
            raise ConfigError("train_dataset is empty; expected at least one prompt")
        if "prompt_id" not in dataset.column_names:
            self.dataset = dataset.add_column("prompt_id", list(range(len(dataset))))
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(self.dataset["prompt_id"]))}

    @property
    def rows(self) -> int | None:
        """Rows of the data set; `None` if it is streamed."""
        return len(self.dataset) if self._numbers else None

    @property
    def names(self) -> list[Any]:
        """Every prompt's name; its place is its number."""
        return list(self._numbers)

    def of(self, inputs: Sequence[Mapping[str, Any]]) -> list[int]:
        """The numbers of the prompts of rows."""
        return [self._numbers.get(row.get("prompt_id"), UNKNOWN) for row in inputs]

    def further(self, seen: set[int], wanted: int, generator: torch.Generator) -> list[int]:
        """Places of `wanted` rows of prompts that were not seen, at random; none if there are fewer."""
        unseen = [row for row, number in enumerate(self._of_rows) if number not in seen]
        if len(unseen) < wanted:
            return []
        return [unseen[index] for index in torch.randperm(len(unseen), generator=generator)[:wanted].tolist()]

    @functools.cached_property
    def _of_rows(self) -> list[int]:
        return [self._numbers[name] for name in self.dataset["prompt_id"]]

    def renumbered(self, names: list[Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An estimator's state in this data set's numbering; prompts that are no longer in it are forgotten.

        Args:
            names: what the prompts were called, by the number they had.
            state: tensors with a value per prompt.
        """
        pairs = [(self._numbers[name], old) for old, name in enumerate(names) if name in self._numbers]
        result = {}
        for key, values in state.items():
            moved = values.new_zeros(len(self._numbers))
            for new, old in pairs:
                if old < len(values):
                    moved[new] = values[old]
            result[key] = moved.cpu()
        return result


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler with the permutation of an epoch as a function of seed and epoch alone."""

    def __init__(self, epoch: Callable[[], int], original: Any) -> None:
        self.__dict__.update(original.__dict__)
        self._epoch = epoch

    def __iter__(self) -> Any:
        if self.shuffle and self.seed is not None:
            self.generator.manual_seed(self.seed)
            for _ in range(self._epoch()):
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()


class PromptReader:
    """Prompts to tokens before the model writes, and its tokens to the text that is graded.

    Args:
        tokenizer: of transformers; for a model that sees images, the one inside its processor.
        vocabulary: how many tokens the model knows.
        ends: tokens that end a response.
        images: whether the model sees images; its processor then reads conversations as they are.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int], images: bool) -> None:
        self._tokenizer, self._vocabulary, self._images = tokenizer, vocabulary, images
        self._ordinary_ends = set(ends) - set(tokenizer.all_special_ids)

    def check(self, dataset: Any, tokens: Callable[[list[Any]], Any] | None) -> None:
        """Say before the first step when a prompt cannot be read.

        Args:
            dataset: the prompts; a streamed one is left alone.
            tokens: how prompts become tokens; `None` if that is somebody else's affair.

        Raises:
            ConfigError: there is such a prompt, or the chat template refuses the first conversation.
        """
        if self._images or not hasattr(dataset, "__len__") or "prompt" not in dataset.column_names:
            return
        prompts = [plain_prompt(prompt) for prompt in dataset["prompt"]]
        if tokens is not None:
            tokens(prompts if isinstance(prompts[0], str) else prompts[:1])

    def plain(self, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows with content parts as their text."""
        return list(inputs) if self._images else [{**row, "prompt": plain_prompt(row["prompt"])} for row in inputs]

    def tokens(self, prompts: list[Any], conversations: Callable[[list[Any]], Any]) -> Any:
        """Tokens, images and what else a processor gives.

        Args:
            prompts: all texts or all conversations.
            conversations: how TRL reads conversations.

        Raises:
            ConfigError: the tokenizer or its chat template cannot read a prompt.
        """
        if isinstance(prompts[0], str):
            return encode_prompts(self._tokenizer, prompts, self._vocabulary), None, {}
        try:
            return conversations(prompts)
        except Exception as error:
            # A chat template is a program of its own and raises what it likes.
            raise ConfigError(
                f"the chat template cannot write {shown(prompts[0])}: {' '.join(str(error).split())[:200]}. Change the "
                "conversation, or set tokenizer.chat_template"
            ) from error

    def check_written(self, responses: Sequence[Sequence[int]]) -> None:
        """Refuse responses with tokens that the model does not know, as a rollout function may return.

        Raises:
            BatchError: there is one.
        """
        largest = max(max(ids) for ids in responses)
        if largest >= self._vocabulary:
            raise BatchError(
                f"a completion holds token id {largest}; expected ids below the model's vocabulary of "
                f"{self._vocabulary}. Model and tokenizer do not belong together"
            )

    def cut_ends(self, responses: Sequence[list[int]], completions: list[Any]) -> None:
        """Take the text of an end token out of what is graded; that of a special token is left out by TRL.

        Args:
            responses: tokens of each response.
            completions: their texts or conversations, changed in place.
        """
        for place, ids in enumerate(responses):
            if ids and ids[-1] in self._ordinary_ends:
                text = self._tokenizer.decode(ids[:-1], skip_special_tokens=True)
                if isinstance(completions[place], str):
                    completions[place] = text
                elif isinstance(completions[place][-1].get("content"), str):
                    completions[place][-1]["content"] = text


def with_empty_responses(rollout: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A rollout function whose empty responses are a padding token outside the mask: TRL cannot hold them otherwise.

    They have no token to learn from, are left out of the number of responses, and are counted in
    `completions/empty_fraction`; their reward still is one of their group.
    """

    @functools.wraps(rollout)
    def marked(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        output = dict(rollout(prompts, trainer))
        written = output["completion_ids"]
        masks = output.get("env_mask") or [[1] * len(ids) for ids in written]
        output["env_mask"] = [mask if ids else [0] for ids, mask in zip(written, masks, strict=True)]
        output["completion_ids"] = [ids or [trainer.processing_class.pad_token_id] for ids in written]
        if output.get("logprobs") is not None:
            output["logprobs"] = [values or [0.0] for values in output["logprobs"]]
        trainer.record("completions/empty_fraction", sum(not ids for ids in written) / len(written))
        return output

    return marked
