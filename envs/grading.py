r"""Is the answer in a response right? The last `\boxed{}` or `####` decides, and hostile text costs a bounded time.

Numbers, fractions and everything made of them are compared here, exactly. What needs more, such as roots, π, letters,
is evaluated to 50 digits in worker processes with hard limits on time and memory. What an answer may look like and
when two are equal is in `envs.answers`; a wrong reward is the worst fault, so that in doubt two answers are not equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

from envs.answers.characters import plain, squeezed
from envs.answers.comparison import compare
from envs.answers.evaluation import Overrun, Workers
from envs.answers.extraction import Extracted, extract_answer
from envs.answers.reading import is_mere_unit, read
from envs.answers.references import LONGEST_ANSWER, acceptable_answers
from testbed.errors import ConfigError

__all__ = ["REASONS", "Extracted", "Grade", "Grader", "extract_answer"]

REASONS = {
    "equal": "the answer equals the reference",
    "different": "the answer was understood and is another one",
    "unit": "the number is right, and its unit is not the reference's",
    "empty": "the response is empty, or its last box or #### is",
    "no answer": "neither a box nor ####, and more than one short line of text",
    "unfinished": "the last box is never closed",
    "too long": "the answer has more characters than the grader reads",
    "unparsable": "the answer is no mathematics that the grader knows, and not the reference's words",
    "unclear": "the answer can be read in more than one way, or words beside it may change what it says",
    "no number": "only a number was asked for, and the answer is none, such as an expression to be worked out",
    "time": "the worker was killed at its time limit",
    "died": "the worker ended by itself: out of memory, or out of stack",
}
"""Why a grade is what it is. All but the first three mean `parsed=False`."""
_UNDERSTOOD = ("equal", "different", "unit")
PATIENCE = 3
"""Time limits of one expression that all expressions of an answer may take together."""

Completion = str | Sequence[Mapping[str, Any]]
"""Text, or a conversation as chat templates have it."""


@dataclass(frozen=True)
class Grade:
    """The verdict on one response."""

    correct: bool
    """Whether the answer equals the reference."""
    parsed: bool
    """Whether there was an answer that could be understood; a response without one is also not correct."""
    reason: str
    """A key of `REASONS`."""


_NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\$?(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?P<decimals>\.[0-9]+)?"
    r"(?: (?P<unit>[A-Za-z]{2,}(?: [A-Za-z]+)*))?\.?"
)


def _number(answer: str, *, counts: bool = False) -> Fraction | int | None:
    """The exact value of a plain decimal number, thousands commas allowed: nearly all answers are one.

    Args:
        answer: what may be one.
        counts: whether words that only say what it counts may follow.
    """
    match = _NUMBER.fullmatch(answer) if len(answer) <= LONGEST_ANSWER else None
    if match is None or (match["unit"] and not counts):
        return None
    digits = match["digits"].replace(",", "")
    if match["unit"] and ("$" in answer or not is_mere_unit(match["unit"], digits == "1")):
        return None
    value = Fraction(digits + match["decimals"]) if match["decimals"] else int(digits)
    return -value if match["sign"] in ("-", "−") else value


class Grader:
    r"""Grades responses against reference answers, with a pool of worker processes for what is no fraction.

    Workers start when an answer first needs one. Use a grader as a context manager, or `close` it, to end them; they
    also end with it. `counts` says how many grades so far had each reason.

    Args:
        workers: processes that may run at once.
        seconds: wall-clock limit for one expression; a worker that passes it is killed.
        megabytes: address space of a worker beyond which its allocations fail (not enforced on Windows and macOS).
        longest: characters of an answer that are read; longer ones are not graded.
        numbers_only: whether nothing but a number is an answer. Otherwise what equals the reference is right, such as
            the question `9+4` itself, which is what a model learns first that is asked for sums.

    Raises:
        ConfigError: a limit is not positive.

    Example:
        >>> grader = Grader()
        >>> grader.grade("So she has 1,000 left.\n#### 1,000", "1000")
        Grade(correct=True, parsed=True, reason='equal')
        >>> grader.grade("#### 5 cents", "5 dollars")
        Grade(correct=False, parsed=True, reason='unit')
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        seconds: float = 2.0,
        megabytes: int = 512,
        longest: int = LONGEST_ANSWER,
        numbers_only: bool = False,
    ) -> None:
        limits = {"workers": workers, "seconds": seconds, "megabytes": megabytes, "longest": longest}
        for name, limit in limits.items():
            if not limit > 0:
                raise ConfigError(f"{name} is {limit}; expected a positive limit")
        self.longest, self.numbers_only = longest, numbers_only
        self.counts: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.workers = Workers(workers, seconds, megabytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the grader stays usable and starts new ones when it needs them."""
        self.workers.close()

    def grade(self, response: str, reference: str) -> Grade:
        """The verdict on one response."""
        return self.grade_batch([response], [reference])[0]

    def grade_batch(self, responses: Sequence[str], references: Sequence[str]) -> list[Grade]:
        """One verdict per response, in order; equal pairs are graded once.

        Args:
            responses: what the model wrote.
            references: the right answer to each; one that itself holds a box or #### is cut like a response, and
                `envs.answers.references.any_of` makes one of several acceptable answers.

        Raises:
            ConfigError: the lengths differ, or a reference is empty or no text.
        """
        if len(responses) != len(references):
            raise ConfigError(
                f"{len(responses)} responses and {len(references)} references; expected one reference per response"
            )
        verdicts = [self._settle(*pair) for pair in zip(responses, references, strict=True)]
        pairs = list(dict.fromkeys(verdict for verdict in verdicts if isinstance(verdict, tuple)))
        judged: dict[tuple[str, tuple[str, ...]], Grade] = {}
        if pairs:
            with ThreadPoolExecutor(min(self.workers.count, len(pairs))) as threads:
                judged = dict(zip(pairs, threads.map(self._judge, pairs), strict=True))
        grades = [judged[verdict] if isinstance(verdict, tuple) else verdict for verdict in verdicts]
        self.counts.update(grade.reason for grade in grades)
        return grades

    def reward(self, completions: Sequence[Completion], answer: Sequence[str], **columns: object) -> list[float]:
        """1.0 for a right answer and 0.0 for any other, with the signature TRL calls reward functions by.

        Args:
            completions: texts, or conversations whose last message counts.
            answer: the reference answer of each, a column of the data set.
            columns: whatever else the data set holds; unused.
        """
        texts = [_text(completion) for completion in completions]
        return [float(grade.correct) for grade in self.grade_batch(texts, answer)]

    def _settle(self, response: str, reference: str) -> Grade | tuple[str, tuple[str, ...]]:
        """The verdict if it is between two plain numbers, else the answer and those that are right."""
        if not isinstance(reference, str):
            raise ConfigError(f"a reference answer is {reference!r:.80}; expected text")
        expected = acceptable_answers(reference)
        extracted = extract_answer(response)
        if extracted.answer is None:
            return Grade(False, False, extracted.reason)
        answer = extracted.answer
        if len(answer) > self.longest:
            return Grade(False, False, "too long")
        if self.numbers_only and _number(answer, counts=True) is None:
            return Grade(False, False, "no number")
        if answer in expected:
            return Grade(True, True, "equal")
        if len(expected) == 1:
            value, right = _number(answer, counts=True), _number(expected[0])
            if value is not None and right is not None:
                return Grade(value == right, True, "equal" if value == right else "different")
        return answer, expected

    def _judge(self, pair: tuple[str, tuple[str, ...]]) -> Grade:
        answer, expected = pair
        reasons = []
        values = self.workers.within(PATIENCE)
        for right in expected:
            try:
                same = squeezed(plain(answer)) == squeezed(plain(right))
                reason: str = "equal" if same else compare(read(answer), read(right), values)
            except Overrun as overrun:
                reason = overrun.reason
            if reason == "equal":
                return Grade(True, True, reason)
            reasons.append(reason)
        # Of several acceptable answers the first says why none of them is the answer.
        return Grade(False, reasons[0] in _UNDERSTOOD, reasons[0])


def _text(completion: Completion) -> str:
    """The text that counts: the last message, its parts joined where it has parts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else []
    return "".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))
