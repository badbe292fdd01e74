r"""Right answers: what can be one, and several of which any will do.

Several acceptable answers are written as JSON, `{"any of": ["1/2", "one half"]}`, in one string, so that a reference
is text in every table, trainer and record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from envs.answers.characters import plain
from envs.answers.extraction import extract_answer
from envs.answers.reading import Chain, Text, read
from testbed.errors import ConfigError

__all__ = ["LONGEST_ANSWER", "acceptable_answers", "any_of", "check_reference"]

LONGEST_ANSWER = 1000
"""Characters of an answer that are read."""
_ANY_OF = '{"any of":'


def any_of(answers: Sequence[str]) -> str:
    """One reference that each of several answers equals.

    >>> any_of(["1/2", "one half"])
    '{"any of": ["1/2", "one half"]}'

    Raises:
        ConfigError: there is none, or one is no text or itself such a reference.
    """
    if isinstance(answers, str) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise ConfigError(f"any of is {answers!r:.80}; expected a list of texts, one for each acceptable answer")
    if any(answer.startswith(_ANY_OF) for answer in answers):
        raise ConfigError("an acceptable answer is itself a list of acceptable answers; write them all into one list")
    return json.dumps({"any of": list(answers)}, ensure_ascii=False)


@lru_cache(maxsize=65536)
def acceptable_answers(reference: str) -> tuple[str, ...]:
    r"""The answers that a reference accepts, each cut to what follows its `####` or stands in its box.

    >>> acceptable_answers('{"any of": ["1/2", "0.5"]}'), acceptable_answers("so\n#### 18")
    (('1/2', '0.5'), ('18',))

    Raises:
        ConfigError: it is empty, or a list that cannot be read.
    """
    if not reference.startswith(_ANY_OF):
        answer = extract_answer(reference).answer or reference.strip()
        if not answer:
            raise ConfigError("a reference answer is empty; expected the text of the right answer")
        return (answer,)
    try:
        answers = json.loads(reference)["any of"]
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{reference!r:.80} is no list of acceptable answers; expected {{"any of": ["…"]}}'
        ) from error
    any_of(answers)
    return tuple(answer for each in answers for answer in acceptable_answers(each))


def check_reference(reference: str) -> None:
    r"""Refuse a reference that no answer could be found to equal, its own text aside.

    Raises:
        ConfigError: it is empty, too long, no mathematics although it looks like it, or open to two readings.

    >>> check_reference(r"\frac{1}{")
    Traceback (most recent call last):
    testbed.errors.ConfigError: the answer '\\frac{1}{' cannot be read as mathematics, nor as words; write it out
    """
    for answer in acceptable_answers(reference):
        if len(answer) > LONGEST_ANSWER:
            raise ConfigError(f"the answer has {len(answer):,} characters; expected at most {LONGEST_ANSWER:,}")
        if not answer.isprintable() or "\ufffd" in answer:
            raise ConfigError(f"the answer {answer!r:.80} has characters that cannot be printed; expected plain text")
        reading = read(answer)
        if answer == "None" or plain(answer).lower() in ("nan", "null", "n/a", "<na>"):
            raise ConfigError(f"the answer is {answer!r}; expected a value, or no such row")
        if isinstance(reading, Chain) and len({member.exact for member in reading.members}) > 1:
            raise ConfigError(f"the answer {answer!r:.80} says that different numbers are equal; give one of them")
        if isinstance(reading, Text) and reading.why == "unclear":
            raise ConfigError(f"the answer {answer!r:.80} can be read in more than one way; write it so that it cannot")
        if isinstance(reading, Text) and reading.why == "unparsable":
            raise ConfigError(f"the answer {answer!r:.80} cannot be read as mathematics, nor as words; write it out")
