"""TensorBoard's event files: records with a checksum, each a protocol buffer; read here without TensorFlow."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np

from analysis.diagnose.reader import Reader, reader
from analysis.diagnose.series import Block, block_of_rows
from analysis.diagnose.source import LONGEST_LINE, Found, Source

__all__ = ["TENSORBOARD", "masked_checksum"]

_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def masked_checksum(data: bytes) -> int:
    """CRC-32C of the bytes, rotated and shifted as TFRecord files have it.

    >>> hex(masked_checksum(b"123456789"))
    '0xc78ab0e5'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _recognises(source: Source) -> bool:
    head = source.head
    return len(head) >= 12 and masked_checksum(head[:8]) == struct.unpack("<I", head[8:12])[0]


def _records(file: IO[bytes], found: Found) -> Iterator[bytes]:
    while header := file.read(12):
        if len(header) < 12 or masked_checksum(header[:8]) != struct.unpack("<I", header[8:])[0]:
            found.notes.append("the event file is cut off or damaged; what stands before the damage was read")
            return
        (length,) = struct.unpack("<Q", header[:8])
        if length > LONGEST_LINE:
            found.notes.append("the event file has a record too long to be one; what stands before it was read")
            return
        data = file.read(length)
        footer = file.read(4)
        if len(data) < length or len(footer) < 4 or masked_checksum(data) != struct.unpack("<I", footer)[0]:
            found.notes.append("the event file is cut off or damaged; what stands before the damage was read")
            return
        yield data


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer; damaged ones end early."""
    place, end = 0, len(data)
    while place < end:
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield number, data[place : place + size]
            place += size
        elif kind == 2:
            size, place = _varint(data, place)
            yield number, data[place : place + size]
            place += size
        else:
            return


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, place


def _blocks(source: Source, found: Found) -> Iterator[Block]:
    rows: list[dict[str, object]] = []
    with source.open() as file:
        for record in _records(file, found):
            row = _event(record, found)
            if row is None:
                continue
            # A writer that is given one number at a time writes an event for each.
            if rows and rows[-1]["step"] == row["step"] and not (rows[-1].keys() & row.keys()) - {"step", _CLOCK}:
                rows[-1].update(row)
            else:
                rows.append(row)
            if len(rows) > 4096:
                yield block_of_rows(rows[:-1], found.unknown)
                rows = rows[-1:]
    if rows:
        yield block_of_rows(rows, found.unknown)


_CLOCK = "_timestamp"


def _event(record: bytes, found: Found) -> dict[str, object] | None:
    step, row = 0, {}
    summary: list[bytes] = []
    clock = float("nan")
    for number, value in _fields(record):
        if number == 1 and isinstance(value, bytes) and len(value) == 8:
            (clock,) = struct.unpack("<d", value)
        elif number == 2 and isinstance(value, int):
            step = value
        elif number == 5 and isinstance(value, bytes):
            summary.append(value)
    for part in summary:
        for number, value in _fields(part):
            if number == 1 and isinstance(value, bytes):
                tag, scalar, text = _value(value)
                if scalar is not None:
                    row[tag] = scalar
                elif text is not None:
                    _configuration(tag, text, found)
    if not row:
        return None
    return {"step": step, _CLOCK: clock, **row}


def _value(data: bytes) -> tuple[str, float | None, bytes | None]:
    tag, scalar, text = "", None, None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8", errors="replace")
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (scalar,) = struct.unpack("<f", value)
        elif number == 8 and isinstance(value, bytes):
            scalar, text = _tensor(value)
    return tag, scalar, text


_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}


def _tensor(data: bytes) -> tuple[float | None, bytes | None]:
    kind, content, numbers, text = 0, b"", None, None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 4 and isinstance(value, bytes):
            content = value
        elif number == 5 and isinstance(value, bytes) and len(value) >= 4:
            numbers = float(np.frombuffer(value[:4], "<f4")[0])
        elif number == 6 and isinstance(value, bytes) and len(value) >= 8:
            numbers = float(np.frombuffer(value[:8], "<f8")[0])
        elif number == 8 and isinstance(value, bytes):
            text = value
    if numbers is None and content and kind in _TYPES:
        size = np.dtype(_TYPES[kind]).itemsize
        if len(content) == size:
            numbers = float(np.frombuffer(content, _TYPES[kind])[0])
    return numbers, text


def _configuration(tag: str, text: bytes, found: Found) -> None:
    """The arguments that transformers' trainers write beside the curves, as JSON."""
    if not tag.split("/")[0].startswith("args") or len(text) > 1 << 20:
        return
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(given, dict):
        found.configuration.update(given)


TENSORBOARD = reader(
    Reader(
        name="tensorboard",
        title="TensorBoard event files",
        recognises=_recognises,
        blocks=_blocks,
        order=11,
    )
)
