"""Arithmetic written as text: problems by difficulty, a character tokenizer, an exact verifier, and the environment.

The generator and the verifier serve language models too: nothing but `Arithmetic` itself knows of automata.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from envs.automaton import Ending
from envs.catalogue import LONGEST_RESPONSE, environment, whole
from envs.sequences import SequenceTask
from testbed.errors import ConfigError

__all__ = ["LEVELS", "Arithmetic", "CharacterTokenizer", "Problem", "generate_problems", "verify"]

LEVELS = {
    1: "the sum of two digits",
    2: "sum or difference of two numbers up to 99",
    3: "three numbers up to 20 joined by + and -",
    4: "a product of two digits, plus or minus a number up to 99",
    5: "a digit times a sum or difference in parentheses",
}
"""What a problem of each difficulty level looks like."""


_DIFFERENT = {1: 10 * 10, 2: 100 * 100 * 2, 3: 21**3 * 4, 4: 8 * 8 * 100 * 2, 5: 8 * 21 * 21 * 2}
"""How many expressions each level has."""


@dataclass(frozen=True)
class Problem:
    """An expression and the whole number it equals.

    >>> Problem("7*(3-5)", -14, 5)
    Problem(expression='7*(3-5)', answer=-14, level=5)
    """

    expression: str
    """Digits, `+`, `-`, `*` and parentheses, without spaces."""
    answer: int
    """Its value."""
    level: int
    """Its difficulty, a key of `LEVELS`."""


def generate_problems(count: int, level: int = 1, seed: int = 0) -> list[Problem]:
    """Different random problems of one level; a longer list starts with the shorter one.

    Raises:
        ConfigError: the level does not exist, or has not so many different problems.

    >>> generate_problems(2, level=1) == generate_problems(3, level=1)[:2]
    True
    """
    if level not in LEVELS:
        raise ConfigError(f"level is {level!r}; expected one of {', '.join(map(str, LEVELS))}")
    if count > _DIFFERENT[level]:
        raise ConfigError(
            f"count is {count}, but level {level} ({LEVELS[level]}) has only {_DIFFERENT[level]:,} different problems; "
            "ask for fewer or raise the level"
        )
    generator = np.random.default_rng((seed, level))
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        problem = _draw(generator, level)
        problems.setdefault(problem.expression, problem)
    return list(problems.values())


def _draw(generator: np.random.Generator, level: int) -> Problem:
    def number(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    def sign() -> str:
        return "+-"[number(0, 1)]

    def join(left: int, operator: str, right: int) -> int:
        return left + right if operator == "+" else left - right

    if level == 1:
        a, b = number(0, 9), number(0, 9)
        return Problem(f"{a}+{b}", a + b, level)
    if level == 2:
        a, b, first = number(0, 99), number(0, 99), sign()
        return Problem(f"{a}{first}{b}", join(a, first, b), level)
    if level == 3:
        a, b, c, first, second = number(0, 20), number(0, 20), number(0, 20), sign(), sign()
        return Problem(f"{a}{first}{b}{second}{c}", join(join(a, first, b), second, c), level)
    if level == 4:
        a, b, c, first = number(2, 9), number(2, 9), number(0, 99), sign()
        return Problem(f"{a}*{b}{first}{c}", join(a * b, first, c), level)
    a, b, c, first = number(2, 9), number(0, 20), number(0, 20), sign()
    return Problem(f"{a}*({b}{first}{c})", a * join(b, first, c), level)


_WHOLE_NUMBER = re.compile(r"\s*-?[0-9]+\s*")


def verify(problem: Problem, response: str) -> bool:
    """Whether a response is the answer and nothing else: a whole number in decimal, space around it allowed.

    Leading zeros and -0 count, as they do for `int`; a plus sign, words and unfinished text do not.

    >>> fourteen = Problem("7*(3-5)", -14, 5)
    >>> [verify(fourteen, text) for text in ("-14", " -014 ", "14", "-14.", "-1", "")]
    [True, True, False, False, False, False]
    """
    # Any number of leading zeros may precede the digits: strip them, `int` refuses very long strings.
    if not _WHOLE_NUMBER.fullmatch(response):
        return False
    text = response.strip()
    digits = text.lstrip("-").lstrip("0")
    negative = text.startswith("-") and digits != ""
    return negative == (problem.answer < 0) and digits == str(abs(problem.answer)).lstrip("0")


class CharacterTokenizer:
    """One token per character, and one more that ends a sequence.

    >>> tokenizer = CharacterTokenizer("0123456789+")
    >>> tokenizer.encode("7+15"), tokenizer.decode([7, 10, 1, 5, 11, 3])
    ([7, 10, 1, 5], '7+15')
    """

    def __init__(self, alphabet: str = "0123456789+-*()=") -> None:
        """Number the characters of `alphabet` in order; the last token is the end of the sequence.

        Raises:
            ConfigError: a character occurs twice, or there is none.
        """
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise ConfigError(f"alphabet is {alphabet!r}; expected at least one character and none twice")
        self.alphabet = alphabet
        self.end_of_sequence = len(alphabet)
        self._numbers = {character: number for number, character in enumerate(alphabet)}

    @property
    def vocabulary(self) -> int:
        """Number of tokens, the end of the sequence included."""
        return len(self.alphabet) + 1

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without an end.

        Raises:
            ConfigError: a character is not in the alphabet.
        """
        unknown = [character for character in text if character not in self._numbers]
        if unknown:
            raise ConfigError(f"cannot encode {unknown[0]!r} in {text!r}; the alphabet is {self.alphabet!r}")
        return [self._numbers[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text up to the first end of the sequence, if there is one.

        Raises:
            ConfigError: a token is outside the vocabulary.
        """
        characters = []
        for token in tokens:
            if not 0 <= token < self.vocabulary:
                raise ConfigError(f"cannot decode token {token}; expected 0 to {self.end_of_sequence}")
            if token == self.end_of_sequence:
                break
            characters.append(self.alphabet[token])
        return "".join(characters)


ANSWER_TOKENIZER = CharacterTokenizer("0123456789-")
"""What an answer is written in: digits, the minus sign and the end."""


@environment("Arithmetic-v1")
@dataclass(frozen=True, kw_only=True)
class Arithmetic(SequenceTask):
    """Write the value of an arithmetic expression, character by character.

    ## Description
    The prompt is an expression such as `7*(3-5)`, one of `prompts` fixed ones of a difficulty level; the response
    is text over the digits, the minus sign and an end-of-sequence token, read by `verify`. Text that is not ended
    within `length` tokens is wrong. Several texts can be right: leading zeros do not matter.

    ## Action Space
    `Discrete(12)`: 0 to 9 are the digits, 10 is the minus sign, 11 ends the response.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and what is left to be written, as one number; the last value
    means the episode is over. Texts that no continuation can make right share a state.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 with the last token if the text is the answer, else 0.

    ## Episode End
    With the end-of-sequence token, or after `length` tokens.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1. An answer of n characters has one right text for each number of leading zeros that fits:
    H* = mean log(length - n), and for an answer of 0, which may also be written -0, log(2·length - 3).

    ## What It Is Built to Reveal
    The same task as the language models', with an exact answer to every question: variable length, several surface
    forms of one answer, and difficulty that grows with the level.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"prompts": 2, "length": 3}

    prompts: int = whole(16, low=1)
    """Number of problems."""
    level: int = whole(1, low=min(LEVELS), high=max(LEVELS))
    """Difficulty, see `LEVELS`."""
    length: int = whole(5, low=2, high=LONGEST_RESPONSE)
    """Largest number of tokens in a response, the end-of-sequence token included."""

    @property
    def size(self) -> int:
        # At least: what can still become right differs from what cannot.
        return self.prompts * self.length * self.tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        longest = max(len(str(problem.answer)) for problem in self.problems)
        if self.length <= longest:
            raise self.refuse("length", f"at least {longest + 1}, the longest answer and its end")

    @cached_property
    def problems(self) -> list[Problem]:
        """The problem of each prompt."""
        return generate_problems(self.prompts, self.level)

    @property
    def tokens(self) -> int:
        return ANSWER_TOKENIZER.vocabulary

    def prompt_keys(self) -> list[Hashable]:
        return [(prompt, "") for prompt in range(self.prompts)]

    def advance(self, key: Any, token: int, depth: int) -> Hashable | Ending:
        prompt, text = key
        if token == ANSWER_TOKENIZER.end_of_sequence:
            right = text is not None and verify(self.problems[prompt], text)
            return Ending(float(right), float(right))
        if depth == self.length - 1:
            return Ending(0.0, 0.0)
        return (prompt, None if text is None else self._shortest(prompt, text + ANSWER_TOKENIZER.decode([token])))

    def _shortest(self, prompt: int, text: str) -> str | None:
        """A short text with the same right continuations as this one, or None if it has none."""
        sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
        significant = digits.lstrip("0")
        answer = self.problems[prompt].answer
        signs = ("", "-") if answer == 0 else ("-",) if answer < 0 else ("",)
        if sign not in signs or not str(abs(answer)).lstrip("0").startswith(significant):
            return None
        # "-" alone is unfinished, "-0" is a zero: one leading zero is kept where it is all there is.
        return sign + (significant or digits[:1])

    def prompt_texts(self) -> tuple[str, ...]:
        return tuple(f"{problem.expression}=" for problem in self.problems)

    def token_texts(self) -> tuple[str, ...]:
        return (*ANSWER_TOKENIZER.alphabet, "<end>")
