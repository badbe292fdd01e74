"""Environments with responses of several tokens and one reward at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from envs.automaton import Automaton, Ending, Tables, Unfolded, check_size, unfold
from envs.catalogue import LONGEST_RESPONSE, choice, environment, real, whole
from envs.starting_policy import STARTING_POLICIES, StartingPolicy
from testbed.errors import shown

__all__ = ["Copy", "DigitAddition", "Lock", "ModularSum", "Reverse", "SequenceTask", "VariableLength"]

Digits = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SequenceTask(StartingPolicy, ABC):
    """A task described by what each token does to a key; rewards are fixed, the starting policy is drawn per seed."""

    @abstractmethod
    def prompt_keys(self) -> list[Hashable]:
        """The key each prompt starts from."""

    @abstractmethod
    def advance(self, key: Any, token: int, depth: int) -> Hashable | Ending:
        """The key after one more token, or what the finished response pays."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Size of the vocabulary, with any special token."""

    @property
    @abstractmethod
    def size(self) -> int:
        """States times tokens, from the parameters alone, so that too many are refused before one is made.

        A bound may stand for it: what is unfolded is counted once more.
        """

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = [item.name for item in fields(self) if item.metadata["kind"] == "whole"]
        written = ", ".join(f"{name} {shown(getattr(self, name))}" for name in numbers)
        size = f"about {self.size:,}" if self.size < 10**18 else "more than 10^18"
        check_size(f"{self.name} with {written} has {size} transitions", self.size, "one of these numbers")

    @cached_property
    def unfolded(self) -> Unfolded:
        """The tables of the transitions and rewards."""
        return unfold(self.prompt_keys(), self.tokens, self.advance)

    def prompt_texts(self) -> tuple[str, ...]:
        """What a language model reads for each prompt; nothing unless a subclass has texts."""
        return ()

    def token_texts(self) -> tuple[str, ...]:
        """How each token is written; nothing unless a subclass has texts."""
        return ()

    def automaton(self) -> Automaton:
        return self.assemble(
            self.unfolded.transitions,
            self.unfolded.initial_states,
            prompt_texts=self.prompt_texts(),
            token_texts=self.token_texts(),
        )

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        unfolded = self.unfolded
        logits = self.draw_initial_logits(generator, *unfolded.transitions.shape)
        return Tables(unfolded.rewards, unfolded.success, logits)


@environment("ModularSum-v1")
@dataclass(frozen=True, kw_only=True)
class ModularSum(SequenceTask):
    """Digits whose sum must leave the right remainder: many right answers of one length.

    ## Description
    The response is `length` digits. It is right iff their sum and the number of the prompt leave the same remainder
    when divided by `modulus`.

    ## Action Space
    `Discrete(vocabulary)`: the next digit.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and the running sum modulo `modulus`, as one number; the
    last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`; the sum is 0.

    ## Reward
    1 with the last digit if the answer is right, else 0.

    ## Episode End
    After `length` digits.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1. If `modulus` divides `vocabulary`, the uniform policy succeeds with probability 1/modulus, and
    the most random optimum is uniform until the last digit: H* = (length - 1) log vocabulary +
    log(vocabulary / modulus).

    ## What It Is Built to Reveal
    Unnecessary loss of entropy in sequences (H* - H), credit for late tokens, and, with long responses, what
    products of token ratios do.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 3, "length": 3, "vocabulary": 5, "modulus": 3}

    prompts: int = whole(4, low=1)
    """Number of prompts."""
    length: int = whole(6, low=1, high=LONGEST_RESPONSE)
    """Digits in a response, T."""
    vocabulary: int = whole(16, low=2)
    """Number of digits V, 0 to V-1."""
    modulus: int = whole(4, low=2)
    """Modulus M."""
    scale: float = real(2.0, low=0.0)
    """Standard deviation of `normal` logits."""
    initial: str = choice("normal", STARTING_POLICIES)
    """Starting policy, see `StartingPolicy`."""

    @property
    def size(self) -> int:
        return self.prompts * (1 + self.modulus * (self.length - 1)) * self.vocabulary

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary < self.modulus:
            raise self.refuse("vocabulary", f"at least the modulus of {self.modulus}, so that every sum can be reached")

    @property
    def tokens(self) -> int:
        return self.vocabulary

    def prompt_keys(self) -> list[Hashable]:
        return [(prompt, 0) for prompt in range(self.prompts)]

    def advance(self, key: Any, token: int, depth: int) -> Hashable | Ending:
        prompt, total = key
        total = (total + token) % self.modulus
        if depth == self.length - 1:
            right = float(total == prompt % self.modulus)
            return Ending(right, right)
        return (prompt, total)


def distinct_strings(count: int, length: int, vocabulary: int) -> list[Digits]:
    """Fixed, random-looking, different strings of digits; a longer list starts with the shorter one."""
    generator = np.random.default_rng(0)
    strings: dict[Digits, None] = {}
    while len(strings) < count:
        strings[tuple(generator.integers(vocabulary, size=length).tolist())] = None
    return list(strings)


def _has_strings(count: int, length: int, vocabulary: int) -> bool:
    """Whether there are so many different strings, without a power that takes forever."""
    return length >= count.bit_length() or count <= vocabulary**length


@dataclass(frozen=True, kw_only=True)
class _OneAnswer(SequenceTask, ABC):
    """Tasks in which exactly one response is right, so that a key only knows whether all went well so far."""

    prompts: int = whole(8, low=1)
    """Number of prompts."""
    length: int = whole(4, low=1, high=LONGEST_RESPONSE)
    """Tokens in a response, T."""
    vocabulary: int = whole(8, low=2)
    """Number of tokens V."""

    @abstractmethod
    def answers(self) -> list[Digits]:
        """The right response to each prompt."""

    @property
    def size(self) -> int:
        # Of every prompt at every later step: right so far, or not.
        return self.prompts * (1 + 2 * (self.length - 1)) * self.vocabulary

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _has_strings(self.prompts, self.length, self.vocabulary):
            raise self.refuse("prompts", f"at most vocabulary^length = {self.vocabulary**self.length} different ones")

    @property
    def tokens(self) -> int:
        return self.vocabulary

    @cached_property
    def _answers(self) -> list[Digits]:
        return self.answers()

    def prompt_keys(self) -> list[Hashable]:
        return [(prompt, True) for prompt in range(self.prompts)]

    def advance(self, key: Any, token: int, depth: int) -> Hashable | Ending:
        prompt, right = key
        right = right and token == self._answers[prompt][depth]
        if depth == self.length - 1:
            return Ending(float(right), float(right))
        return (prompt, right)

    def token_texts(self) -> tuple[str, ...]:
        return tuple(str(token) for token in range(self.vocabulary))


@environment("Copy-v1")
@dataclass(frozen=True, kw_only=True)
class Copy(_OneAnswer):
    """Say the prompt again: one right answer, so that losing all entropy is correct.

    ## Description
    The prompt is a string of `length` tokens, one of `prompts` fixed ones; the response must repeat it.

    ## Action Space
    `Discrete(vocabulary)`: the next token.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and whether the response is right so far, as one number; the
    last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 with the last token if all tokens are right, else 0.

    ## Episode End
    After `length` tokens.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1, reached by one response per prompt: H* = 0. The uniform policy succeeds with probability
    vocabulary^-length.

    ## What It Is Built to Reveal
    Whether a detector or a bonus mistakes correct certainty for entropy collapse: the distance to H* counts, not H.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 3, "length": 3, "vocabulary": 4}

    def answers(self) -> list[Digits]:
        return distinct_strings(self.prompts, self.length, self.vocabulary)

    def prompt_texts(self) -> tuple[str, ...]:
        return tuple(" ".join(map(str, answer)) for answer in self._answers)


@environment("Reverse-v1")
@dataclass(frozen=True, kw_only=True)
class Reverse(_OneAnswer):
    """Say the prompt backwards: one right answer that a model must look up from the far end.

    ## Description
    The prompt is a string of `length` tokens, one of `prompts` fixed ones, the same as in `Copy`; the response must
    be its reverse.

    ## Action Space
    `Discrete(vocabulary)`: the next token.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and whether the response is right so far, as one number; the
    last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 with the last token if all tokens are right, else 0.

    ## Episode End
    After `length` tokens.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    As `Copy`: optimal value 1, H* = 0.

    ## What It Is Built to Reveal
    Nothing beyond `Copy` for a tabular policy, which never reads the prompt; with shared parameters, the same reward
    over a harder map from prompt to response.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 3, "length": 3, "vocabulary": 4}

    def answers(self) -> list[Digits]:
        return [string[::-1] for string in distinct_strings(self.prompts, self.length, self.vocabulary)]

    def prompt_texts(self) -> tuple[str, ...]:
        return tuple(" ".join(map(str, answer[::-1])) for answer in self._answers)


@environment("Lock-v1")
@dataclass(frozen=True, kw_only=True)
class Lock(_OneAnswer):
    """One password out of vocabulary^length: a reward that is almost never seen.

    ## Description
    The response must be a fixed password; with several prompts each has its own. The prompt does not give it away.

    ## Action Space
    `Discrete(vocabulary)`: the next token.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and whether the response is right so far, as one number; the
    last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 with the last token if all tokens are right, else 0.

    ## Episode End
    After `length` tokens.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1, H* = 0. The uniform policy opens the lock with probability q = vocabulary^-length: n groups of G
    responses contain no reward at all with probability (1-q)^(nG).

    ## What It Is Built to Reveal
    What an objective does while there is no signal, and how much it makes of the first success.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 2, "length": 4, "vocabulary": 3}

    prompts: int = whole(1, low=1)
    """Number of prompts, each with its own password."""
    initial: str = choice("uniform", STARTING_POLICIES)
    """Starting policy, see `StartingPolicy`."""

    def answers(self) -> list[Digits]:
        return distinct_strings(self.prompts, self.length, self.vocabulary)


@environment("VariableLength-v1")
@dataclass(frozen=True, kw_only=True)
class VariableLength(SequenceTask):
    """Responses that end when they choose to, wrong ones later than right ones: where length bias shows.

    ## Description
    The first token is the answer: for each prompt a few of the `vocabulary - 1` ordinary tokens are right. Filler
    follows until the end-of-sequence token, the last of the vocabulary. Under the starting policy the response ends
    at a constant rate that depends on whether the answer was right. A response without an answer, or one that is cut
    off at `length` tokens before it ends, is wrong.

    ## Action Space
    `Discrete(vocabulary)`: the next token; `vocabulary - 1` ends the response.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and whether the answer was right, as one number; the last
    value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 for a right answer with an end, else 0; with the last token.

    ## Episode End
    With the end-of-sequence token, or after `length` tokens.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1. Once the answer is given and as long as the end is in reach, reward does not depend on length: the
    true gradient hardly moves it, and with `length` far away not at all.

    ## What It Is Built to Reveal
    Length bias of reductions (per-response means reward short successes and long failures), the imbalance of positive
    and negative tokens when wrong responses are longer, and length normalisation of sequence ratios.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 2, "length": 4, "vocabulary": 4}

    prompts: int = whole(4, low=1)
    """Number of prompts."""
    length: int = whole(16, low=2, high=LONGEST_RESPONSE)
    """Largest number of tokens in a response, T, the end-of-sequence token included."""
    vocabulary: int = whole(8, low=3)
    """Number of tokens V, the end-of-sequence token included."""
    fraction: float = real(0.3, low=0.0, high=1.0, exclusive=True)
    """Share of the ordinary tokens that are right answers, rounded to a whole number of tokens, at least one."""
    right_length: float = real(4.0, low=2.0, exclusive=True)
    """Mean tokens of a response after a right answer under the starting policy, if it were never cut off."""
    wrong_length: float = real(8.0, low=2.0, exclusive=True)
    """The same after a wrong answer."""

    @property
    def end_of_sequence(self) -> int:
        """The token that ends a response."""
        return self.vocabulary - 1

    @property
    def right_answers(self) -> int:
        """Number of right answers to each prompt."""
        return max(1, round(self.fraction * (self.vocabulary - 1)))

    @property
    def size(self) -> int:
        # Of every prompt at every later step: a right answer was given, or a wrong one.
        return self.prompts * (1 + 2 * (self.length - 1)) * self.vocabulary

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.right_answers >= self.vocabulary - 1:
            raise self.refuse("fraction", f"one that leaves one of the {self.vocabulary - 1} ordinary tokens wrong")

    @property
    def tokens(self) -> int:
        return self.vocabulary

    def prompt_keys(self) -> list[Hashable]:
        return [(prompt, None) for prompt in range(self.prompts)]

    def advance(self, key: Any, token: int, depth: int) -> Hashable | Ending:
        prompt, right = key
        if token == self.end_of_sequence:
            return Ending(float(bool(right)), float(bool(right)))
        if depth == self.length - 1:
            return Ending(0.0, 0.0)
        if depth == 0:
            # The right answers of the next prompt are those of this one, shifted by one token.
            right = (token - prompt) % (self.vocabulary - 1) < self.right_answers
        return (prompt, right)

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        tables = super().draw_tables(generator)
        logits = tables.initial_logits.clone()
        for right, length in ((True, self.right_length), (False, self.wrong_length)):
            rows = torch.tensor([key[1] is right for key in self.unfolded.keys])
            # One answer and a geometric number of further tokens: 1 + 1/rate is the mean.
            rate = 1 / (length - 1)
            filler = logits[rows, : self.end_of_sequence].logsumexp(-1)
            logits[rows, self.end_of_sequence] = filler + float(np.log(rate) - np.log1p(-rate))
        return tables._replace(initial_logits=logits)

    def token_texts(self) -> tuple[str, ...]:
        return (*(str(token) for token in range(self.end_of_sequence)), "<end>")


@environment("DigitAddition-v1")
@dataclass(frozen=True, kw_only=True)
class DigitAddition(SequenceTask):
    """Add two numbers digit by digit, least significant first: what is right depends on a carry.

    ## Description
    The prompt is a pair of numbers of `digits` digits, one of `prompts` fixed pairs; the response is their sum, written
    from the last digit to the first, with `digits + 1` digits. Prompts meet in shared states: a state only knows the
    digits still to be added, the carry and whether all went well.

    ## Action Space
    `Discrete(base)`: the next digit.

    ## Observation Space
    `Discrete(states + 1)`: the remaining digits of both numbers, the carry and whether the response is right so far,
    as one number; the last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 with the last digit if the sum is right, else 0.

    ## Episode End
    After `digits + 1` digits.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1, H* = 0. The uniform policy succeeds with probability base^-(digits + 1).

    ## What It Is Built to Reveal
    Interference: prompts pull at shared states, so that an update on one prompt moves the ratio of another
    although the policy is a table.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 6, "digits": 2, "base": 4}

    prompts: int = whole(32, low=1)
    """Number of pairs."""
    digits: int = whole(2, low=1, high=LONGEST_RESPONSE - 1)
    """Digits of each number."""
    base: int = whole(10, low=2)
    """Base of the number system, which is the vocabulary."""

    @property
    def size(self) -> int:
        # Of every pair of remaining digits: a carry or none, right so far or not. Prompts meet where few digits remain.
        # A state is as long as the digits it holds.
        remaining = range(min(self.digits, self.prompts.bit_length()))
        met = sum(min(self.prompts, self.base ** (2 * digits)) for digits in remaining)
        apart = (self.digits - len(remaining)) * self.prompts
        return (self.prompts + 4 * (met + apart)) * max(self.base, 2 * self.digits)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _has_strings(self.prompts, 2 * self.digits, self.base):
            raise self.refuse("prompts", f"at most base^(2·digits) = {self.base ** (2 * self.digits)} different ones")

    @property
    def tokens(self) -> int:
        return self.base

    @cached_property
    def pairs(self) -> list[tuple[Digits, Digits]]:
        """Both numbers of each prompt, least significant digit first."""
        strings = distinct_strings(self.prompts, 2 * self.digits, self.base)
        return [(string[: self.digits], string[self.digits :]) for string in strings]

    def prompt_keys(self) -> list[Hashable]:
        return [(first, second, 0, True) for first, second in self.pairs]

    def advance(self, key: Any, token: int, depth: int) -> Hashable | Ending:
        first, second, carry, right = key
        if not first:
            right = right and token == carry
            return Ending(float(right), float(right))
        carry, digit = divmod(first[0] + second[0] + carry, self.base)
        return (first[1:], second[1:], carry, right and token == digit)

    def prompt_texts(self) -> tuple[str, ...]:
        return tuple(f"{_written(first)}+{_written(second)}" for first, second in self.pairs)

    def token_texts(self) -> tuple[str, ...]:
        return tuple(str(token) for token in range(self.base))


def _written(digits: Digits) -> str:
    """A number most significant digit first; digits above 9 need separators."""
    return (" " if max(digits) > 9 else "").join(map(str, reversed(digits)))
