"""The gate for configurations: plain data or one sentence, whatever the file holds."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from testbed.configuration import build_settings, parse_yaml, read_settings, read_yaml, shown
from testbed.errors import ConfigError

READY = [path.read_bytes() for path in resources.files("testbed").joinpath("finetune_configs").iterdir()]
LAUGHS = "\n".join(
    f"{name}: &{name} [{', '.join([f'*{inner}'] * 9)}]" for name, inner in zip("bcdef", "abcde", strict=True)
)


@pytest.mark.parametrize("text", READY)
def test_ready_configurations_are_plain(text: bytes) -> None:
    assert parse_yaml(text, "ready")["trainer"]["max_steps"] > 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark_are_understood(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("β: ½".encode(encoding))
    assert read_yaml(path) == {"β": "½"}


def test_a_pipe_is_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a: 1",))
    writer.start()
    assert read_yaml(pipe) == {"a": 1}
    writer.join()


def test_aliases_and_merged_mappings_are_followed() -> None:
    text = "base: &base {steps: 3, rate: 0.1}\nrun: {<<: *base, rate: 0.2}\nagain: *base"
    shared = {"steps": 3, "rate": 0.1}
    assert parse_yaml(text, "f") == {"base": shared, "run": {"steps": 3, "rate": 0.2}, "again": shared}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: \xff", "f is no plain text: byte 0xff at position 3"),
        (b"a: \x07", "f is no plain text: byte 0x07 at position 3"),
        ("a: [", r"f is not YAML: line 1, column 5: .*expected the node content"),
        ("a: 2024-02-30", "line 1, column 4: '2024-02-30' cannot be read as timestamp; put it in quotes"),
        ("a: !!timestamp x", "line 1, column 4: 'x' cannot be read as timestamp"),
        ("a: !!int", "'' cannot be read as int"),
        ("a: !!bool x", "'x' cannot be read as bool"),
        ("a: 0x_", "'0x_' cannot be read as int"),
        ("a: !!int many", "'many' cannot be read as int"),
        ("a: *b", "undefined alias 'b'"),
        ("a: " + "9" * 5000, "cannot be read as int"),
        ("a: " + "9" * 400, r"f: a is 9999\d*\.\.\.\d*; expected a whole number below 2\^64"),
        ("a: 0x" + "f" * 5000, r"a is a number of about 6021 digits; expected a whole number below 2\^64"),
        ('a: "\\UFFFFFFFF"', "f is not YAML"),
        ("a: 2024-02-29", "f: a is a date; expected text, a number"),
        ("a: [1, !!set {x}]", r"f: a\[1\] is a set; expected"),
        ("a: !!binary aGk=", "f: a is bytes; expected"),
        ("a: !!omap [x: 1]", r"f: a\[0\] is a tuple; expected"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("? [1]\n: 2", "line 1, column 3: .*unhashable key"),
        ("a: {1: 2}", "f: a has the key 1, which YAML reads as a number; put it in quotes"),
        ("on: 2", "f has the key True, which YAML reads as true or false"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' stands twice"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("&a [*a]", r"f: \[0\] contains itself"),
        (f"a: &a [{', '.join('123456789')}]\n{LAUGHS}", "f: f has more than 100,000 values"),
        ("a: " + "[" * 40 + "]" * 40, "nested too deeply; expected at most 32"),
        ("a: " + "[" * 3000, "nested too deeply; expected at most 32"),
        ('a: "\\ud800"', "a character that no file can hold"),
        ('"\\0": a', "a key of f is '.x00', with a character that no file can hold"),
    ],
)
def test_rejects_what_is_no_plain_data(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "f")


def test_rejects_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory; give the path of a YAML file"):
        read_yaml(tmp_path)


def test_rejects_a_file_that_nobody_wrote_by_hand() -> None:
    with pytest.raises(ConfigError, match="more than 1 MiB"):
        read_yaml("/dev/zero")


PIECES = [
    *(f"!!{tag} " for tag in ("timestamp", "int", "float", "binary", "set", "omap", "null", "bool", "str")),
    *("&a ", "*a", "<<: ", "? ", "[", "{", "]", "}", "'", '"', "\\", "|", ">", "%", "---\n", "...", "=", "!", "#", ","),
    *("- ", ": ", "\n", "\t", "\0", "1:2:3", "0x", "9" * 400, "2024-13-45", "[" * 1500, ".nan", "\\ud800", "﻿"),
]


def complaint(text: bytes) -> str:
    try:
        parse_yaml(text, "f")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_spoilt_is_plain_data_or_one_sentence(seed: int) -> None:
    draw = random.Random(seed)
    text = bytearray(draw.choice(READY))
    for _ in range(draw.randint(1, 5)):
        place = draw.randrange(len(text))
        if draw.random() < 0.7:
            text[place:place] = draw.choice(PIECES).encode()
        else:
            text[place : place + draw.randint(0, 9)] = bytes([draw.randrange(256)])
    said = complaint(bytes(text))
    assert "\n" not in said
    assert len(said) < 500


# -- dataclasses -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int
    name: str | None = None
    inner: Inner | None = None
    more: list[str] = dataclasses.field(default_factory=list)


def test_settings_are_read_with_their_kinds() -> None:
    assert read_settings(Outer, {"steps": 2, "inner": {"rate": "1e-3"}, "more": ["a"]}, "f") == Outer(
        steps=2, inner=Inner(rate=0.001), more=["a"]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "f is None; expected a mapping with the keys of Outer"),
        ([1], r"f is \[1\]; expected a mapping"),
        ({}, "f lacks steps"),
        ({"stepz": 1}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"steps": True}, "f: steps is True; expected int"),
        ({"steps": 1.5}, r"f: steps is 1\.5; expected int"),
        ({"steps": "9" * 5000}, r"f: steps is '9+\.\.\.9+'; expected int"),
        ({"steps": 1, "inner": 3}, "f: inner is 3; expected a mapping with the keys of Inner"),
        ({"steps": 1, "inner": {"rate": "fast"}}, "f: inner: rate is 'fast'; expected float or int"),
        ({"steps": 1, "more": {}}, "f: more is {}; expected list"),
        ({"steps": 1, "x" * 5000: 1}, "unknown key 'x+...x+'"),
    ],
)
def test_rejects_content_of_another_kind(content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(Outer, content, "f")


@dataclasses.dataclass
class Foreign:
    rate: float = 1.0
    places: Any = None

    def __post_init__(self) -> None:
        if self.places is not None:
            self.places = self.places.strip()


def test_another_librarys_dataclass_is_built() -> None:
    assert build_settings(Foreign, {"rate": "2e-3"}, "f").rate == 0.002


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rat": 1}, "f has the unknown key 'rat', which Foreign does not know; did you mean 'rate'"),
        ({"rate": "fast"}, r"f\.rate is 'fast'; expected float or int"),
        ({"rate": None}, r"f\.rate is None; expected float or int"),
        ({"places": 3}, "f: 'int' object has no attribute 'strip'"),
    ],
)
def test_whatever_another_library_raises_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_settings(Foreign, settings, "f")


def test_a_value_fits_into_a_sentence() -> None:
    assert len(shown({"a": ["x" * 1000] * 1000})) == 160
