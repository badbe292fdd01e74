"""Names to classes: discovery by import of a package's files, and the `name(key=value,…)` notation.

A registered item is a file of a package. Nothing else has to be edited when one is added.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from testbed.errors import ConfigError, TestbedError, UnknownNameError, shown
from testbed.reading import parse_literal

__all__ = ["Registry", "format_call", "parse_call"]

_LONGEST = 10_000
"""Characters of a call; more are a mistake, and what reads them could run out of stack."""
_DEEPEST = 20
"""Brackets inside brackets of a call, likewise."""
_LARGEST = 2**63
"""Whole numbers from here on fit into no tensor."""

_INFINITE = ("inf", "-inf")

T = TypeVar("T")
Item = TypeVar("Item")


class Registry(Generic[T]):
    """Named items of one kind, filled by importing every public module of `package` and of the packages in it.

    Args:
        kind: what an item is called in an error message, such as "objective".
        package: dotted name of the package whose modules register themselves on import.
            None: items are only those registered explicitly.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._discovered = package is None

    def register(self, name: str) -> Callable[[Item], Item]:
        """Decorator that files an item under `name`; a second item of that name is an error."""

        def file_under(item: Item) -> Item:
            if name in self._items:
                raise ConfigError(f"{self.kind} {name!r} is registered twice; names are unique, rename one of them")
            self._items[name] = cast(T, item)
            return item

        return file_under

    def _discover(self) -> None:
        if self._discovered or self.package is None:
            return
        self._discovered = True
        self._import_below(importlib.import_module(self.package))

    def _import_below(self, package: ModuleType) -> None:
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                imported = self._import(f"{package.__name__}.{module.name}")
                if module.ispkg:
                    self._import_below(imported)

    def _import(self, module: str) -> ModuleType:
        try:
            return importlib.import_module(module)
        except (TestbedError, TypeError) as error:
            # Items check themselves when they are made, which is while their file is imported: name the file.
            raise ConfigError(f"{module.replace('.', '/')}.py cannot be loaded: {error}") from error

    def __getitem__(self, name: str) -> T:
        self._discover()
        if not isinstance(name, str) or name not in self._items:
            raise UnknownNameError(self.kind, str(name), self._items)
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._discover()
        return sorted(self._items)


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name` or `name(key=value,…)` into the name and its keyword arguments.

    Values are Python literals; a bare word is a string, and a nested `name(…)` stays a string for
    whoever resolves that key.

    Raises:
        ConfigError: the text is no call, is too long or nested too deep to be one, gives a key twice, or a value is
            neither a number that fits into a tensor, nor text, True, False, None or a list of those.

    >>> parse_call("erc(base=gppo(clip_low=0.1),beta_low=0.1)")
    ('erc', {'base': 'gppo(clip_low=0.1)', 'beta_low': 0.1})
    """
    if not isinstance(text, str):
        raise ConfigError(f"cannot read {shown(text)}; expected name or name(key=value,…), as text")
    text = text.strip()
    if len(text) > _LONGEST:
        raise ConfigError(f"cannot read {shown(text)}: it has {len(text):,} characters; expected at most {_LONGEST:,}")
    if "(" not in text:
        return text, {}
    name, _, rest = text.partition("(")
    if not rest.endswith(")"):
        raise ConfigError(f"cannot read {shown(text)}; expected name or name(key=value,…)")
    arguments: dict[str, Any] = {}
    for part in _split_top_level(rest[:-1]):
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigError(
                f"cannot read {shown(part.strip())} in {shown(text)}; expected key=value, such as clip_low=0.2"
            )
        if key.strip() in arguments:
            raise ConfigError(f"{shown(text)} gives {shown(key.strip())} twice; expected each key once")
        arguments[key.strip()] = _plain(key.strip(), parse_literal(value.strip()))
    return name.strip(), arguments


def format_call(name: str, arguments: dict[str, Any]) -> str:
    """The inverse of `parse_call`.

    >>> format_call("dapo", {"clip_low": 0.1})
    'dapo(clip_low=0.1)'
    """
    if not arguments:
        return name
    return f"{name}({','.join(f'{key}={value}' for key, value in arguments.items())})"


def _plain(key: str, value: Any) -> Any:
    if value in _INFINITE:
        # Python writes infinity so, but does not read it.
        return float(value)
    for item in value if isinstance(value, tuple | list) else [value]:
        if isinstance(item, tuple | list):
            _plain(key, item)
        elif isinstance(item, int) and abs(item) >= _LARGEST:
            raise ConfigError(f"{key} is {shown(item)}, a number of {item.bit_length()} bits; expected at most 63")
        elif not isinstance(item, int | float | str | None):
            raise ConfigError(f"{key} is {shown(value)}; expected a number, text, True, False, None or a list of those")
    return value


def _split_top_level(text: str) -> list[str]:
    parts, depth, start, quote = [], 0, 0, ""
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([") - (character in ")]")
            if depth > _DEEPEST:
                raise ConfigError(f"{shown(text)} is nested deeper than {_DEEPEST} brackets; write it flat")
        if character == "," and depth == 0 and not quote:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]
