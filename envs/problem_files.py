r"""Rows of a problem file: JSON lines, a JSON list or Parquet, in the encodings and the packing they come in.

The format is seen from the content, not from the name: many a file called `.json` holds JSON lines. Whatever a parser
raises leaves this module as one sentence that names the file and, where there is one, the line.

Numbers are kept as they stand in the file: `NumberText("0.00001")`, not a float that prints as `1e-05`.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from testbed.errors import ConfigError

__all__ = ["LONGEST_LINE", "NumberText", "read_rows"]

LONGEST_LINE = 1_000_000
"""Characters of one row of JSON lines. A problem has some thousands; a longer line is a file of another kind."""
_LONGEST_LIST = 500_000_000


class NumberText(str):
    """A number of a JSON file, in the characters it is written in there."""


_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_UNREAD = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"BZh": "compressed by bzip2",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "a database",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_rows(path: Path) -> Iterator[Any]:
    """The rows of a file, one after another; whether each is an object with named fields is for the caller to check.

    Raises:
        ConfigError: the file cannot be read, is of another kind, or a row is not JSON.
    """
    with _one_sentence(path), path.open("rb") as file:
        head = file.read(32)
        file.seek(0)
        for mark, kind in _UNREAD.items():
            if head.startswith(mark):
                raise ConfigError(f"{path} is {kind}; expected JSON lines, a JSON list or Parquet, plain or gzipped")
        if head.startswith(_PARQUET):
            yield from _parquet_rows(path, file)
        elif head.startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield from _json_rows(path, unpacked)
        else:
            yield from _json_rows(path, file)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except UnicodeError as error:
        raise ConfigError(
            f"{path} is not text in UTF-8 ({error}); save it as UTF-8, or with the byte-order mark of its encoding"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(f"{path} is damaged: its gzip stream cannot be unpacked ({error})") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _parquet_rows(path: Path, file: IO[bytes]) -> Iterator[Any]:
    from pyarrow import ArrowException, parquet

    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (ArrowException, ValueError) as error:
        raise ConfigError(f"{path} begins like a Parquet file and cannot be read as one: {error}") from error


def _json_rows(path: Path, file: io.BufferedReader | gzip.GzipFile) -> Iterator[Any]:
    head = file.peek(4)[:4]
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    # Only \n ends a row: other line ends may stand inside a JSON string.
    with io.TextIOWrapper(file, encoding=encoding, newline="\n") as text:
        lines = _lines(path, text)
        number, first = next(lines, (0, ""))
        if first.lstrip().startswith("["):
            yield from _list(path, first + text.read(_LONGEST_LIST))
        elif first:
            for place, row in chain([(number, first)], lines):
                yield _parse(row, f"{path}, line {place}", "one object per line, or a list of objects")


def _list(path: Path, text: str) -> list[Any]:
    if len(text) > _LONGEST_LIST:
        raise ConfigError(f"{path} is a list of more than {_LONGEST_LIST:,} characters; save it as JSON lines")
    rows: list[Any] = _parse(text, str(path), "a list of objects")
    return rows


def _lines(path: Path, text: IO[str]) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers. Of a line that starts a list, it may be no more than the start."""
    number = 0
    while line := text.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE and not line.lstrip().startswith("["):
            raise ConfigError(
                f"{path}, line {number} has more than {LONGEST_LINE:,} characters; expected one problem per line"
            )
        if "\0" in line:
            raise ConfigError(f"{path}, line {number} has zero bytes; expected text in UTF-8. Save the file as UTF-8")
        if line.strip():
            yield number, line


def _parse(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(
            text,
            parse_float=NumberText,
            parse_int=NumberText,
            parse_constant=NumberText,
            object_pairs_hook=_object,
        )
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON ({error}); expected {expected}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deep to be read; expected {expected}") from error


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)
        raise ValueError(f"the field {twice[:40]!r} stands twice in one object")
    return fields
