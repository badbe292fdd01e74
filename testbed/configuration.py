"""Configurations that somebody wrote: YAML to plain data, plain data to a settings dataclass.

Whatever is wrong with a file, its encoding, its syntax, a key or a value, is one `ConfigError` that names the place.
What comes back is what JSON could hold as well: None, bool, int, float, str, list, and dict with text as keys.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from testbed.errors import ConfigError, did_you_mean

__all__ = ["build_settings", "check_keys", "parse_yaml", "read_settings", "read_yaml", "shown"]

LARGEST_FILE = 1 << 20
"""Bytes; a configuration is written by hand."""
MOST_VALUES = 100_000
"""Values after aliases are followed: a few lines of them can stand for more than fits into memory."""
MOST_LEVELS = 32
"""Lists and mappings within one another."""
LARGEST_NUMBER = 2**64
"""Whole numbers below it, of either sign, are seeds and counts; larger ones are slips."""

Settings = TypeVar("Settings")


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file as plain data.

    Args:
        path: a file, or anything that can be read like one.

    Raises:
        ConfigError: it cannot be read, is too large, or as `parse_yaml`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read {shown(str(path))}: {reason}; give the path of a YAML file") from error
    if len(content) > LARGEST_FILE:
        raise ConfigError(
            f"{path} has more than {LARGEST_FILE >> 20} MiB; expected a configuration, as somebody writes it by hand"
        )
    return parse_yaml(content, str(path))


def parse_yaml(text: str | bytes, where: str) -> Any:
    r"""The content of a YAML text as plain data.

    Args:
        text: bytes are UTF-8, or UTF-16 with a byte-order mark.
        where: what the text is called in a message.

    Raises:
        ConfigError: it is no YAML, gives a key twice, or holds something that is no plain data: a date, bytes, a set, a
            whole number of 2^64 or more, a list within itself, a character that no file can hold.

    Example:
        >>> parse_yaml("steps: 3\nvary: [0.1, 0.2]", "sweep.yaml")
        {'steps': 3, 'vary': [0.1, 0.2]}
        >>> parse_yaml("day: 2024-01-01", "sweep.yaml")
        Traceback (most recent call last):
            ...
        testbed.errors.ConfigError: sweep.yaml: day is a date; expected text, a number, a list or a mapping. Put it in
        quotes if it is text
    """
    try:
        content = yaml.load(text, Loader=_PlainLoader)
    except yaml.reader.ReaderError as error:
        what = f"byte 0x{error.character:02x}" if isinstance(error.character, int) else f"{error.character!r}"
        if isinstance(error.character, bytes):
            what = f"byte 0x{error.character[0]:02x}"
        raise ConfigError(
            f"{where} is no plain text: {what} at position {error.position} cannot stand in YAML; save it as UTF-8"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        found = _sentence(", ".join(part for part in (error.context, error.problem) if part))
        raise ConfigError(f"{where} is not YAML: {place}{found}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} {_TOO_DEEP}") from error
    except Exception as error:
        # The parser hands on whatever exception a conversion raised, of any class.
        raise ConfigError(f"{where} is not YAML: {_sentence(str(error))}") from error
    _check_plain(content, where)
    return content


_TOO_DEEP = f"is nested too deeply; expected at most {MOST_LEVELS} lists and mappings within one another"


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with two more errors: a key that stands twice, and a value that is not what its form says.

    It would keep the last of two values silently, and fail on the 30th of February with whatever was raised inside.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {shown(key.value)} stands twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                problem=f"{shown(node.value)} cannot be read as {kind}; put it in quotes if it is text",
                problem_mark=node.start_mark,
            ) from error


def _check_plain(content: Any, where: str) -> None:
    """Refuse what is no plain data, with its place; a value that aliases repeat is looked at once and counted often."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def measure(value: Any, place: str) -> int:
        named = f"{where}: {_sentence(place, 100)}" if place else where
        if not isinstance(value, dict | list):
            _check_scalar(value, named)
            return 1
        if id(value) in above:
            raise ConfigError(f"{named} contains itself; write out what is meant")
        if id(value) not in sizes:
            above.add(id(value))
            if len(above) > MOST_LEVELS:
                raise ConfigError(f"{where} {_TOO_DEEP}")
            size = 1
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(value, dict) and not isinstance(key, str):
                    raise ConfigError(
                        f"{named} has the key {shown(key)}, which YAML reads as {_kind(key)}; put it in quotes"
                    )
                if isinstance(key, str):
                    _check_scalar(key, f"a key of {named}")
                size += measure(item, f"{place}[{key}]" if isinstance(value, list) else f"{place}.{key}".lstrip("."))
            above.remove(id(value))
            sizes[id(value)] = size
        if sizes[id(value)] > MOST_VALUES:
            raise ConfigError(f"{named} has more than {MOST_VALUES:,} values, aliases followed; write a smaller one")
        return sizes[id(value)]

    measure(content, "")


def _check_scalar(value: Any, where: str) -> None:
    if value is None or isinstance(value, bool | float):
        return
    if isinstance(value, int):
        if abs(value) >= LARGEST_NUMBER:
            raise ConfigError(f"{where} is {shown(value)}; expected a whole number below 2^64")
    elif isinstance(value, str):
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise ConfigError(f"{where} is {shown(value)}, with a character that no file can hold; write another")
    else:
        raise ConfigError(
            f"{where} is {_kind(value)}; expected text, a number, a list or a mapping. Put it in quotes if it is text"
        )


def _kind(value: Any) -> str:
    kinds = {"bool": "true or false", "NoneType": "nothing", "int": "a number", "float": "a number", "bytes": "bytes"}
    return kinds.get(type(value).__name__, f"a {type(value).__name__}")


def _sentence(text: str, longest: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 2
        self.maxlong = 30

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out very long numbers.
        digits = int(x.bit_length() * 0.30103) + 1
        return super().repr_int(x, level) if digits < 1000 else f"a number of about {digits} digits"


def shown(value: Any) -> str:
    """A value as it stands in a message: its `repr`, cut to a length that fits into a sentence.

    >>> shown([1, 2]), len(shown("x" * 10_000))
    ('[1, 2]', 60)
    """
    return _sentence(_Short().repr(value), 160)


# -- dataclasses -----------------------------------------------------------------------------------------------------


def read_settings(kind: type[Settings], content: Any, where: str) -> Settings:
    """A settings dataclass from plain data: keys and kinds of values are checked, nested dataclasses read in turn.

    A field of floats takes whole numbers too, and text such as `1e-3`, which YAML 1.1 does not read as a number.

    Args:
        kind: the dataclass.
        content: a mapping with its fields as keys.
        where: what it is called in a message.

    Raises:
        ConfigError: no mapping, an unknown or missing key, or a value of another kind.

    Example:
        >>> @dataclasses.dataclass
        ... class Walk:
        ...     steps: int
        ...     stride: float = 0.7
        >>> read_settings(Walk, {"steps": 3, "stride": "1e-3"}, "walk.yaml")
        Walk(steps=3, stride=0.001)
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} is {shown(content)}; expected a mapping with the keys of {kind.__name__}")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in content:
        if key not in fields:
            hint = did_you_mean(key, fields) or "."
            raise ConfigError(f"{where} has the unknown key {shown(key)}{hint} Known: {', '.join(fields)}")
    missing = [
        name
        for name, item in fields.items()
        if name not in content and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in content.items()})


def _value(expected: Any, value: Any, where: str) -> Any:
    union = typing.get_origin(expected) in (typing.Union, types.UnionType)
    options = typing.get_args(expected) if union else (expected,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if dataclasses.is_dataclass(option) and not (isinstance(value, str) and str in options):
            return read_settings(typing.cast(Any, option), value, where)
    accepted = tuple(typing.get_origin(option) or option for option in options)
    if float in accepted:
        accepted = (*accepted, int)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join(kind.__name__ for kind in accepted if kind is not type(None))
        raise ConfigError(f"{where} is {shown(value)}; expected {names}")
    return value


def check_keys(kind: Any, settings: Mapping[str, Any], where: str) -> None:
    """Refuse keys that are no fields of another library's dataclass.

    Raises:
        ConfigError: an unknown key; the message has the nearest known one.
    """
    fields = [item.name for item in dataclasses.fields(kind)]
    for key in settings:
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise ConfigError(f"{where} has the unknown key {shown(key)}, which {kind.__name__} does not know{hint}")


def build_settings(kind: Any, settings: Mapping[str, Any], where: str) -> Any:
    """Another library's dataclass; what it does not know or refuses is one sentence.

    Raises:
        ConfigError: an unknown key, or whatever the constructor raised.
    """
    check_keys(kind, settings, where)
    hints = typing.get_type_hints(kind)
    values = {key: _foreign_value(hints[key], value, f"{where}.{key}") for key, value in settings.items()}
    try:
        return kind(**values)
    except Exception as error:
        # Constructors that check nothing fail somewhere inside, with any class of exception.
        raise ConfigError(f"{where}: {_sentence(str(error)) or type(error).__name__}") from error


_PLAIN = {int, float, bool, str, list, dict, type(None)}


def _foreign_value(expected: Any, value: Any, where: str) -> Any:
    """A value checked against its annotation, where that names kinds of plain data only."""
    union = typing.get_origin(expected) in (typing.Union, types.UnionType)
    options = {typing.get_origin(option) or option for option in (typing.get_args(expected) if union else (expected,))}
    return _value(typing.Union[tuple(options)], value, where) if options <= _PLAIN else value  # noqa: UP007
