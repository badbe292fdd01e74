"""Reading results.json: what has to be there is checked here, what may be missing stays missing."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import ConfigError
from testbed.reading import read_json

__all__ = ["VERDICTS", "load_results"]

VERDICTS = {
    "reproduced": "The whole interval lies on the claimed side of the threshold. For an exact statement: the "
    "largest deviation is within its tolerance.",
    "refuted": "The whole interval lies on the other side. The statement does not hold here, within the stated scope.",
    "inconclusive": "The interval contains the threshold, or there are too few seeds. Nothing is claimed either way.",
    "broken": "The deliberately sabotaged variant passed as well, so the check cannot tell true from false.",
    "vacuous": "The mechanism under test never acted: no clipping, zero gradients or every ratio equal to 1.",
}
"""Each verdict and what it means, in the order in which a report lists them."""


def load_results(run_folder: str | Path) -> dict[str, Any]:
    """The content of `run_folder`/results.json: `run`, a mapping, and `claims`, a list of mappings with an `id`.

    A field that this version does not know is kept, one that is missing stays missing; one that is there is of the kind
    that belongs there.

    Raises:
        ConfigError: there is no such file, or it is not the result of a run; the message names the field.
    """
    path = Path(run_folder) / "results.json"
    if not path.is_file():
        raise ConfigError(
            f"{str(run_folder)!r} holds no results.json; give the folder of a finished run, such as runs/quick"
        )
    results = read_json(path)
    if not isinstance(results, dict) or not isinstance(results.get("claims"), list):
        raise ConfigError(f"{str(path)!r} has no list of claims; expected the results.json of `testbed verify`")
    names = set()
    for position, claim in enumerate(results["claims"]):
        if not isinstance(claim, dict) or not isinstance(claim.get("id"), str) or not claim["id"]:
            raise ConfigError(f"claim number {position} of {str(path)!r} has no id; run `testbed verify` again")
        if claim["id"] in names:
            raise ConfigError(f"{str(path)!r} holds the claim {claim['id']!r} twice; run `testbed verify` again")
        names.add(claim["id"])
    results = {"run": results.get("run") or {}, "claims": results["claims"]}
    wrong = _mismatch(results["run"], _PLAIN, "run") or _mismatch(results["run"], _RUN, "run")
    for claim in results["claims"]:
        wrong = wrong or _mismatch(claim, _CLAIM, f"claim {claim['id']!r}")
    if wrong:
        raise ConfigError(f"{str(path)!r}: {wrong}; run `testbed verify` again")
    return results


# -- what belongs where ------------------------------------------------------------------------------------------------

_LARGEST = 1e100
"""No figure needs a number beyond it."""
_DEEPEST = 8
"""Lists and mappings within one another in a setting."""


@dataclass(frozen=True)
class _Kind:
    """Plain values of one kind."""

    words: str
    fits: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    # Half of a surrogate pair is no letter and cannot be written.
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_number(value: Any) -> bool:
    # What is not finite is missing, here as everywhere.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST or (isinstance(value, float) and not math.isfinite(value))


def _is_row(value: Any, length: int | None = None) -> bool:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        return False
    return all(item is None or _is_number(item) for item in value)


def _is_plain(value: Any, levels: int = _DEEPEST) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_is_text(key) and _is_plain(item, levels - 1) for key, item in value.items())
    if isinstance(value, list):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    return value is None or isinstance(value, bool) or _is_text(value) or _is_number(value)


_TEXT = _Kind("text", _is_text)
_TEXTS = _Kind("a list of texts", lambda value: all(map(_is_text, value if isinstance(value, list) else [value])))
_NUMBER = _Kind("a number", _is_number)
_INTERVAL = _Kind("two numbers", lambda value: _is_row(value, 2))
_ROW = _Kind("a list of numbers", _is_row)
_SETTING = _Kind("a mapping of plain values", lambda value: isinstance(value, dict | str) and _is_plain(value))
_SEEDS = _Kind("a number or a list", lambda value: isinstance(value, list) or _is_number(value))
_PLAIN = _Kind("plain values", _is_plain)
_EVERY = "*"
"""Of a mapping: whatever the key."""
_READING = {"estimand": _TEXT, "estimate": _NUMBER, "interval": _INTERVAL, "level": _NUMBER}
_SERIES = {"label!": _TEXT, "x!": _ROW, "mean!": _ROW, "low": _ROW, "high": _ROW}
# A field with a ! must be there; any other may be missing or null.
_CLAIM: dict[str, Any] = _READING | {
    **dict.fromkeys(("title", "paper", "source", "statement", "reason", "kind", "tier", "scope", "unit"), _TEXT),
    **dict.fromkeys(("verdict", "recorded", "direction", "protocol_hash", "reproduce", "record"), _TEXT),
    **dict.fromkeys(("threshold", "seeds_needed", "seconds", "p_value", "trend_p_value"), _NUMBER),
    "seeds": _SEEDS,
    "setting": _SETTING,
    "notes": _TEXTS,
    "falsifier": _READING | {"description": _TEXT, "verdict": _TEXT},
    "null": _READING | {"setting": {_EVERY: _PLAIN}},
    "controls": [_READING],
    "event_times": {_EVERY: {"median": _NUMBER, "median_interval": _INTERVAL, "events": _NUMBER, "seeds": _NUMBER}},
    "adjusted": {_EVERY: _NUMBER},
    "curves": [{"title!": _TEXT, "x_label!": _TEXT, "y_label!": _TEXT, "series!": [_SERIES]}],
}
_RUN: dict[str, Any] = {
    **dict.fromkeys(("commit", "tier", "command", "date", "record"), _TEXT),
    **dict.fromkeys(("seed", "seeds", "seconds"), _NUMBER),
    "versions": {_EVERY: _TEXT},
}


def _mismatch(value: Any, shape: Any, where: str) -> str | None:
    """What does not have the shape: a kind, a mapping of shapes by field, or a list of one shape."""
    if isinstance(shape, _Kind):
        return None if shape.fits(value) else f"{where} is {_shown(value)}; expected {shape.words}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {_shown(value)}; expected a list"
        entries = (_mismatch(item, shape[0], f"{where}, entry {number}") for number, item in enumerate(value))
        return next(filter(None, entries), None)
    if not isinstance(value, dict):
        return f"{where} is {_shown(value)}; expected a mapping"
    for field, inner in shape.items():
        for key in value if field == _EVERY else [field.rstrip("!")]:
            found = value.get(key)
            if found is None and not field.endswith("!"):
                if field == _EVERY and isinstance(inner, dict):
                    return f"{where}: {_shown(key)} is null; expected a mapping"
                continue
            if not _is_text(key):
                return f"{where} has the key {_shown(key)}; expected text"
            wrong = _mismatch(found, inner, f"{where}: {key}")
            if wrong:
                return wrong
    return None


def _shown(value: Any) -> str:
    return reprlib.repr(value).encode("ascii", "backslashreplace").decode()
