"""Where a log comes from: a file, standard input or the files of a folder, opened as a stream of bytes."""

from __future__ import annotations

import codecs
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from testbed.errors import ConfigError

__all__ = ["Found", "Source", "json_entries", "lines", "pieces"]

HEAD = 1 << 16
"""Bytes a reader may look at to recognise a log."""

LONGEST_LINE = 64 << 20
"""Bytes of one row; a longer one is no row of a log."""

LONGEST_UNBROKEN = 1 << 30
"""Bytes of standard input without a line break: more is not copied to the disk to find out what it is."""

_CHUNK = 4 << 20


@dataclass
class Found:
    """What a log says besides its rows.

    Attributes:
        configuration: settings written into the log, such as the arguments a trainer gives its tracker.
        skipped: lines that are no rows.
        notes: sentences about the file that a reader of the report should know.
        unknown: keys that no engine has, put here by whoever collects; readers may leave them out.
    """

    configuration: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


class Source:
    """One file of a log.

    Args:
        path: the file; "-" reads standard input into a temporary file.

    Raises:
        ConfigError: the file is empty, or standard input does not break its line.
    """

    def __init__(self, path: str | Path, stream: IO[bytes] | None = None) -> None:
        self.name = "standard input" if stream is not None else str(path)
        self.path = None if stream is not None else Path(path)
        self._spooled: IO[bytes] | None = None
        if stream is not None:
            self._spooled = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the source
            self._spool(stream, self._spooled)
        with self._raw() as file:
            self.head = file.read(HEAD)
        if not self.head.strip(b"\0 \t\r\n"):
            self.close()
            raise ConfigError(f"{self.name} is empty; expected the log of a training run")
        self.encoding = _encoding(self.head)
        if self.encoding:
            with self.open() as file:
                self.head = file.read(HEAD)

    def _spool(self, stream: IO[bytes], file: IO[bytes]) -> None:
        unbroken = 0
        while chunk := stream.read(_CHUNK):
            file.write(chunk)
            last = chunk.rfind(b"\n")
            unbroken = unbroken + len(chunk) if last < 0 else len(chunk) - last - 1
            if unbroken > LONGEST_UNBROKEN:
                file.close()
                size = LONGEST_UNBROKEN >> 20
                raise ConfigError(f"{self.name} has a line of more than {size} MiB; expected the log of a training run")

    def _raw(self) -> IO[bytes]:
        if self._spooled is not None:
            self._spooled.seek(0)
            return _Borrowed(self._spooled)
        assert self.path is not None
        return self.path.open("rb")

    def open(self) -> IO[bytes]:
        """The content from the start, UTF-8 whatever it was written in."""
        file = self._raw()
        if self.encoding is None:
            return file
        if self.encoding == "utf-8-sig":
            file.read(3)
            return file
        return io.BufferedReader(_Recoded(file, self.encoding))

    def close(self) -> None:
        """Give the temporary file back, if there is one."""
        if self._spooled is not None:
            self._spooled.close()

    def first_lines(self, most: int = 50) -> list[str]:
        """The first complete lines of the head that are not blank."""
        text = self.head.decode("utf-8", errors="replace")
        found = [line for line in text.splitlines() if line.strip()]
        return found[:most]


class _Borrowed(io.BufferedReader):
    """A temporary file that survives being closed by one of its users."""

    def __init__(self, file: Any) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))


class _Recoded(io.RawIOBase):
    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._decoder, self._rest = file, codecs.getincrementaldecoder(encoding)("replace"), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            raw = self._file.read(_CHUNK)
            self._rest = self._decoder.decode(raw, final=not raw).lstrip("\ufeff").encode("utf-8", "replace")
            if not raw:
                break
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _encoding(head: bytes) -> str | None:
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return None


def lines(source: Source, longest: int = LONGEST_LINE) -> Iterator[list[bytes]]:
    """Complete lines in batches of a few megabytes, without their line feeds; raises as `pieces`."""
    for piece in pieces(source, longest):
        yield piece.split(b"\n")


def pieces(source: Source, longest: int = LONGEST_LINE) -> Iterator[bytes]:
    """The content in pieces of a few megabytes that end with a line.

    Raises:
        ConfigError: a line is longer than `longest` bytes.
    """
    rest: list[bytes] = []
    size = 0
    with source.open() as file:
        while chunk := file.read(_CHUNK):
            cut = chunk.rfind(b"\n")
            if cut < 0:
                rest.append(chunk)
                size += len(chunk)
                if size > longest:
                    raise ConfigError(
                        f"{source.name} has a line of more than {longest >> 20} MiB; expected rows of numbers, one a "
                        "line"
                    )
                continue
            rest.append(chunk[:cut])
            yield b"".join(rest)
            rest, size = [chunk[cut + 1 :]], len(chunk) - cut - 1
    last = b"".join(rest)
    if last.strip():
        yield last


def json_entries(source: Source, start: str | None) -> Iterator[Any]:
    """The entries of a JSON array, one at a time, without reading the whole document.

    Args:
        source: a JSON document.
        start: the key the array stands under; `None`: the document is the array. What stands before the array is
            yielded first, as text.

    Raises:
        ConfigError: an entry is too long to be a row, or the document is damaged before its first entry.
    """
    import json
    import re

    decoder = json.JSONDecoder()
    opening = re.compile(r"\s*\[" if start is None else rf'"{re.escape(start)}"\s*:\s*\[')
    skip = re.compile(r"[\s,]*")
    text, place, inside, ended = "", 0, False, False
    reader = codecs.getincrementaldecoder("utf-8")("replace")
    with source.open() as file:
        while True:
            raw = b"" if ended else file.read(_CHUNK)
            ended = not raw
            text = text[place:] + reader.decode(raw, final=ended)
            place = 0
            if not inside:
                found = opening.search(text)
                if found is None:
                    if ended or len(text) > LONGEST_LINE:
                        return
                    continue
                yield text[: found.start()]
                place, inside = found.end(), True
            while True:
                gap = skip.match(text, place)
                place = gap.end() if gap else place
                if place >= len(text):
                    break
                if text[place] == "]":
                    return
                try:
                    entry, after = decoder.raw_decode(text, place)
                except (json.JSONDecodeError, RecursionError):
                    if not ended and len(text) - place <= LONGEST_LINE:
                        break
                    return
                if after == len(text) and not ended:
                    # A number at the end of what was read may go on.
                    break
                yield entry
                place = after
            if ended:
                return
            if len(text) - place > LONGEST_LINE:
                raise ConfigError(
                    f"{source.name} has an entry of more than {LONGEST_LINE >> 20} MiB; expected rows of numbers"
                )
