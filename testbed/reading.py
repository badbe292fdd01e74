"""The gates through which text from outside comes in, one per format: what cannot be read is one sentence.

Parsers raise what they like: an encoding error, a recursion that is too deep, an attribute error over a date. A gate
turns all of it into one kind of error that names the file, and returns plain data whose kinds the caller checks. The
gate for YAML is in `testbed.configuration`, with the reader of settings.
"""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path
from typing import Any

from testbed.errors import ConfigError

__all__ = ["parse_json", "parse_literal", "parse_whole", "read_json", "read_text"]

_SHOWN = 200
"""More characters than this of what a parser says do not help in a message."""
_DIGITS = 18
"""More digits than this count nothing; every number of so many fits into 64 bits."""


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises:
        ConfigError: it cannot be opened, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text ({_said(error)}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {str(path)!r}: {reason}; give the path of a text file") from error


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; errors as `read_text` and `parse_json`."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, origin: str) -> Any:
    """Plain data from JSON.

    Args:
        text: the JSON.
        origin: where it is from, for the message.

    Raises:
        ConfigError: it cannot be read, whatever the parser stumbles over.

    Example:
        >>> parse_json('{"steps": 3}', "a.json")
        {'steps': 3}
        >>> parse_json("[" * 100_000, "a.json")
        Traceback (most recent call last):
            ...
        testbed.errors.ConfigError: a.json is no valid JSON: maximum recursion depth exceeded while decoding a JSON ...
    """
    try:
        return json.loads(text)
    except Exception as error:
        raise ConfigError(f"{origin} is no valid JSON: {_said(error)}") from error


def parse_literal(text: str) -> Any:
    """The value of a Python literal; any other text is itself.

    Example:
        >>> parse_literal("0.2"), parse_literal("[1, 2]"), parse_literal("dapo"), parse_literal("{[]:1}")
        (0.2, [1, 2], 'dapo', '{[]:1}')
    """
    try:
        with warnings.catch_warnings():
            # "1if" would be warned about before it is refused.
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except Exception:
        return text


def parse_whole(text: str) -> int | None:
    """A number written in at most 18 decimal digits; None for any other text.

    Example:
        >>> parse_whole(" 12 "), parse_whole("²"), parse_whole("-1")
        (12, None, None)
    """
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS else None


def _said(error: Exception) -> str:
    """What a parser says, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= _SHOWN else said[:_SHOWN] + " …"
