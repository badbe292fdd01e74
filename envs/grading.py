r"""Is the answer in a response right? The last `\boxed{}` or `####` decides, and hostile text costs a bounded time.

Whole numbers and plain decimals are compared here, exactly. Everything else is parsed and compared by math-verify
in worker processes with hard limits on time and memory: one that overruns is killed and another takes its place.

What is decided where the libraries leave a choice (`50\%` and the like are in `Grader`):
    1. Of several answers in one response the one that *starts* last decides; the others are not looked at.
    2. A response without `\boxed{}` or `####` is an answer only if it is nothing but one: a single short line.
    3. A box that is never closed is no answer: the response was cut off in it.
    4. A number followed by words is that number (`18 dollars`); not so if a word scales it (`18 thousand`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.errors import ConfigError, TestbedError

__all__ = ["REASONS", "Extracted", "Grade", "Grader", "extract_answer"]

REASONS = {
    "equal": "the answer equals the reference",
    "different": "the answer was understood and is another one",
    "empty": "the response is empty, or its last box or #### is",
    "no answer": "neither a box nor ####, and more than one short line of text",
    "unfinished": "the last box is never closed",
    "too long": "the answer has more characters than the grader reads",
    "unparsable": "math-verify does not understand the answer",
    "time": "the worker was killed at its time limit",
    "died": "the worker ended by itself: out of memory, or out of stack",
}
"""Why a grade is what it is. All but the first two mean `parsed=False`."""

LONGEST_LINE = 100
"""Characters a response without a box or #### may have and still be taken for an answer."""


Completion = str | Sequence[Mapping[str, str]]
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


@dataclass(frozen=True)
class Extracted:
    """What a response gives as its answer."""

    answer: str | None
    """The text that decides, or `None`."""
    reason: str
    """If there is no answer, the key of `REASONS` that says why; else empty."""


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*\{")
_NUMBER = re.compile(r"(?P<sign>[-+−]?)\$?(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?P<decimals>\.[0-9]+)?")
_UNIT = re.compile(r"(?P<number>[^ ]+) +(?P<words>[A-Za-z]{2,}(?: +[A-Za-z]{2,})*)")
# After these a number is another number; "or" and "and" announce a second answer.
_SCALES = frozenset(
    ["hundred", "thousand", "million", "billion", "trillion", "dozen", "score", "percent", "half", "and", "or"]
)


def extract_answer(response: str) -> Extracted:
    r"""The part of a response that is its answer, in time linear in the response.

    >>> extract_answer(r"maybe \boxed{3}, no: \boxed{\frac{1}{2}}").answer
    '\\frac{1}{2}'
    >>> extract_answer("8 + 10 = 18\n#### 18\n").answer
    '18'
    >>> extract_answer("It is 18.\nOr is it 20?").reason
    'no answer'
    """
    hashes = response.rfind("####")
    boxes = deque(_BOX.finditer(response, max(hashes, 0)), maxlen=1)
    if boxes:
        return _inside_braces(response, boxes[0].end())
    if hashes >= 0:
        tail = response[hashes + 4 :].lstrip("#").strip()
        return _present(tail.split("\n", 1)[0])
    line = response.strip()
    if line and (len(line) > LONGEST_LINE or "\n" in line):
        return Extracted(None, "no answer")
    return _present(line)


def _inside_braces(text: str, start: int) -> Extracted:
    depth = 1
    for brace in _BRACE.finditer(text, start):
        # An escaped brace is a character of the answer; the first alternative passes over it.
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return _present(text[start : brace.start()])
    return Extracted(None, "unfinished")


def _present(text: str) -> Extracted:
    text = text.strip()
    return Extracted(text, "") if text else Extracted(None, "empty")


def _tidy(answer: str) -> str:
    """Without what surrounds an answer in prose: Markdown, dollar signs, the full stop, a unit in words."""
    answer = answer.strip()
    for mark in ("**", "`", "$$", "$"):
        if len(answer) > 2 * len(mark) and answer.startswith(mark) and answer.endswith(mark):
            answer = answer[len(mark) : -len(mark)].strip()
    answer = answer.rstrip(".,;:").rstrip()
    unit = _UNIT.fullmatch(answer)
    if unit and _NUMBER.fullmatch(unit["number"]) and _SCALES.isdisjoint(unit["words"].lower().split()):
        return unit["number"]
    return answer


def _number(answer: str) -> Fraction | None:
    """The exact value of a plain decimal number, thousands commas and a dollar sign allowed."""
    match = _NUMBER.fullmatch(answer)
    if match is None:
        return None
    value = Fraction(match["digits"].replace(",", "") + (match["decimals"] or ""))
    return -value if match["sign"] in ("-", "−") else value


class Grader:
    r"""Grades responses against reference answers in a pool of worker processes.

    Workers start when an answer first needs one. Use a grader as a context manager, or `close` it, to end them; they
    also end with it. `counts` says how many grades so far had each reason.

    What math-verify decides is documented, not corrected: `50\%` equals both `0.5` and `50`; lists are compared without
    order (`1,2,3` equals `3,2,1`) and never equal a single number; `x=18` equals `18`; degrees and `\text{}` are
    dropped; a decimal equals a fraction to 6 digits (`0.333333` and `1/3`). Two plain decimals are equal only exactly.

    Args:
        workers: processes that may run at once.
        seconds: wall-clock limit for one answer; a worker that passes it is killed.
        megabytes: address space of a worker beyond which its allocations fail (not enforced on Windows and macOS).
        longest: characters of an answer that are read; longer ones are not graded.

    Raises:
        ConfigError: a limit is not positive, or an answer needs math-verify and it is not installed.

    Example:
        >>> Grader().grade("So she has 1,000 left.\n#### 1,000", "1000")
        Grade(correct=True, parsed=True, reason='equal')
    """

    def __init__(self, workers: int = 2, *, seconds: float = 2.0, megabytes: int = 512, longest: int = 1000) -> None:
        limits = {"workers": workers, "seconds": seconds, "megabytes": megabytes, "longest": longest}
        for name, limit in limits.items():
            if not limit > 0:
                raise ConfigError(f"{name} is {limit}; expected a positive limit")
        self.workers = workers
        self.seconds = seconds
        self.megabytes = megabytes
        self.longest = longest
        self.counts: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        # A place holds a worker, or None where the next request has to start one.
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._places.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the grader stays usable and starts new ones when it needs them."""
        for place in [self._places.get() for _ in range(self.workers)]:
            if place is not None:
                place.stop()
            self._places.put(None)

    def grade(self, response: str, reference: str) -> Grade:
        """The verdict on one response."""
        return self.grade_batch([response], [reference])[0]

    def grade_batch(self, responses: Sequence[str], references: Sequence[str]) -> list[Grade]:
        """One verdict per response, in order; equal pairs are graded once.

        Args:
            responses: what the model wrote.
            references: the right answer to each; one that itself holds a box or #### is cut like a response.

        Raises:
            ConfigError: the lengths differ, or a reference is empty.
        """
        if len(responses) != len(references):
            raise ConfigError(
                f"{len(responses)} responses and {len(references)} references; expected one reference per response"
            )
        verdicts = [self._settle(*pair) for pair in zip(responses, references, strict=True)]
        pairs = list(dict.fromkeys(verdict for verdict in verdicts if isinstance(verdict, tuple)))
        judged: dict[tuple[str, str], Grade] = {}
        if pairs:
            with ThreadPoolExecutor(min(self.workers, len(pairs))) as threads:
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
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        return [float(grade.correct) for grade in self.grade_batch(texts, answer)]

    def _settle(self, response: str, reference: str) -> Grade | tuple[str, str]:
        """The verdict if it needs no parser, else the pair (answer, reference) to hand to a worker."""
        expected = extract_answer(reference).answer or reference.strip()
        if not expected:
            raise ConfigError("a reference answer is empty; expected the text of the right answer")
        extracted = extract_answer(response)
        if extracted.answer is None:
            return Grade(False, False, extracted.reason)
        if len(extracted.answer) > self.longest:
            return Grade(False, False, "too long")
        answer, expected = _tidy(extracted.answer), _tidy(expected)
        if answer == expected:
            return Grade(True, True, "equal")
        value, right = _number(answer), _number(expected)
        if value is not None and right is not None:
            return Grade(value == right, True, "equal" if value == right else "different")
        return answer, expected

    def _judge(self, pair: tuple[str, str]) -> Grade:
        place = self._places.get()
        try:
            if place is None or not place.alive:
                place = _Worker(self.megabytes, self.seconds)
            return place.judge(*pair)
        finally:
            self._places.put(place)


class _Worker:
    """One process that judges pairs until it is killed or ends."""

    STARTUP_SECONDS = 60.0

    def __init__(self, megabytes: int, seconds: float) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError(
                "an answer other than a plain number needs math-verify, which is not installed; "
                "install the extra: pip install 'policy-objective-testbed[llm]'"
            )
        self.seconds = seconds
        self._overran = False
        script = Path(__file__).with_name("_grading_worker.py")
        # -P: the folder of the script, this package's, must not become a place to import from.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(megabytes), str(2 * seconds + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.stop = weakref.finalize(self, _end, self._process)
        if self._ask(None, self.STARTUP_SECONDS) != "ready\n":
            self.stop()
            raise TestbedError(
                f"a grading worker did not start within {self.STARTUP_SECONDS:.0f} s and {megabytes} MB; "
                "raise megabytes, and check that `import math_verify` works"
            )

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def judge(self, answer: str, reference: str) -> Grade:
        """The verdict; a worker that overruns is killed."""
        line = self._ask(json.dumps([answer, reference]) + "\n", self.seconds)
        if not line or self._overran:
            self.stop()
        if not line:
            return Grade(False, False, "time" if self._overran else "died")
        equal, parsed = json.loads(line)
        if not parsed:
            return Grade(False, False, "unparsable")
        return Grade(equal, True, "equal" if equal else "different")

    def _ask(self, request: str | None, seconds: float) -> str:
        """The next line of the worker, empty if it did not live to write it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(seconds, self._kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            if request is not None:
                self._process.stdin.write(request)
                self._process.stdin.flush()
            return self._process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            watchdog.cancel()
            # A watchdog that has just gone off must not do so in the middle of the next request.
            watchdog.join()

    def _kill(self) -> None:
        self._overran = True
        self._process.kill()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # A request that the dead worker never read may still be buffered.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
