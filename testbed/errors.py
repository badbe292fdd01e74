"""Every error a user can provoke, each also an instance of the built-in it specialises, and the base of all warnings.

A message says what was given, what was expected and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BatchError",
    "ConfigError",
    "RunExistsError",
    "StorageError",
    "TestbedError",
    "TestbedWarning",
    "UnknownNameError",
    "did_you_mean",
    "shown",
]


_LISTED = 40
"""More names than this do not help in a message."""
_SHOWN = 120
"""More characters than this of a value neither."""
_NEAR = 0.5
"""How alike two names are, from 0 to 1, for one to be meant by the other."""


def shown(value: object) -> str:
    r"""The value as it was written, for a message: on one line, the middle of a long one left out.

    >>> shown(0.2), shown("a\nb"), len(shown("9" * 5000))
    ('0.2', "'a\\nb'", 120)
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        # Python does not write integers of more than 4,300 digits.
        text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    half = _SHOWN // 2
    return text if len(text) <= _SHOWN else f"{text[: half - 1]}…{text[len(text) - half :]}"


def did_you_mean(typed: object, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: the nearest that is, or nothing where none is near.

    >>> did_you_mean("clip_hihg", ["clip_low", "clip_high"]), did_you_mean("xyz", ["clip_low"])
    ("; did you mean 'clip_high'?", '')
    """
    name = str(typed)[:_SHOWN]
    nearest = max(known, key=lambda choice: _similarity(name, choice), default="")
    return f"; did you mean {nearest!r}?" if _similarity(name, nearest) >= _NEAR else ""


class TestbedError(Exception):
    """Base class of all errors raised on purpose by this project."""

    # The name starts with "Test": keep pytest from collecting it.
    __test__ = False


class TestbedWarning(UserWarning):
    """Base class of all warnings of this project; the command line prints them as sentences."""

    __test__ = False


class BatchError(TestbedError, ValueError):
    """Tensors handed to an objective or an estimator do not fit together."""


class ConfigError(TestbedError, ValueError):
    """A setting is out of its range, or two settings contradict each other."""


class RunExistsError(TestbedError, FileExistsError):
    """The output folder already holds another run; nothing was written."""


class StorageError(TestbedError, OSError):
    """A file cannot be written, is damaged, or belongs to something else; nothing was overwritten."""


class UnknownNameError(TestbedError, KeyError):
    """A name is in no registry; the message offers the nearest one.

    >>> str(UnknownNameError("objective", "dpao", ["dapo", "ppo"]))
    "unknown objective 'dpao'; did you mean 'dapo'? Known: dapo, ppo"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        hint = did_you_mean(name, choices) or "."
        listing = f"Known: {', '.join(choices)}" if len(choices) <= _LISTED else f"{len(choices)} are known"
        self.message = f"unknown {kind} {shown(name)}{hint} {listing}"
        self._made_of = kind, name, choices
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        # An exception is copied from its message alone, which is not what this one is made of.
        return type(self), self._made_of

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return self.message


def _similarity(typed: str, name: str) -> float:
    typed, name = typed.lower(), name.lower()
    # Swapped letters are the commonest slip and count for less than a wrong one.
    return difflib.SequenceMatcher(None, typed, name).ratio() + 0.1 * (sorted(typed) == sorted(name))
