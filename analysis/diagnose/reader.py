"""How a reader is filed, and how the one that fits a file is found: by what the file holds, not by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from analysis.diagnose.series import Block
from analysis.diagnose.source import Found, Source
from testbed.errors import ConfigError
from testbed.registry import Registry

__all__ = ["Reader", "find_reader", "reader", "readers"]


@dataclass(frozen=True)
class Reader:
    """One container of metrics.

    Attributes:
        name: short name.
        title: what it reads, for people.
        recognises: whether a file is one, from its head alone.
        blocks: its rows.
        order: readers are asked in this order; the stricter its test, the earlier.
        engine: the engine that alone writes this container, if one does.
    """

    name: str
    title: str
    recognises: Callable[[Source], bool]
    blocks: Callable[[Source, Found], Iterator[Block]]
    order: int = 50
    engine: str | None = None


readers: Registry[Reader] = Registry("reader", "analysis.diagnose.readers")
"""Every reader; a file of `analysis.diagnose.readers` each."""


def reader(item: Reader) -> Reader:
    """File a reader under its name."""
    readers.register(item.name)(item)
    return item


def find_reader(source: Source) -> Reader:
    """The first reader that recognises a file.

    Raises:
        ConfigError: none does.
    """
    for item in sorted((readers[name] for name in readers.names()), key=lambda item: (item.order, item.name)):
        if item.recognises(source):
            return item
    kinds = ", ".join(readers[name].title for name in readers.names())
    binary = b"\0" in source.head
    what = "is a binary file that no reader knows" if binary else "holds no log that a reader knows"
    raise ConfigError(f"{source.name} {what}; expected one of: {kinds}")
