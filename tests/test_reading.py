"""Whatever a parser raises becomes one sentence that names where the text is from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.errors import ConfigError
from testbed.reading import parse_json, parse_literal, parse_whole, read_json, read_text
from testbed.registry import parse_call


def test_text_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfsteps: \xc3\xa4")
    assert read_text(tmp_path / "a") == "steps: ä"


def test_refuses_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"steps: \xff")
    with pytest.raises(ConfigError, match=r"a is no UTF-8 text \('utf-8' codec can't decode byte 0xff .*save it as"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("name", ["missing", ".", "nul\0"])
def test_refuses_what_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*': .*; give the path of a text file"):
        read_text(tmp_path / name)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, '{"a": nan}', "{'a': 1}"])
def test_refuses_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.json is no valid JSON: \S"):
        read_json(tmp_path / "a.json")


def test_reads_plain_data() -> None:
    assert parse_json('{"a": [1, 2.5, null, true]}', "") == {"a": [1, 2.5, None, True]}


@pytest.mark.parametrize(
    "text",
    ["{[]:1}", "-" * 1000 + "1", "-" * 100_000 + "1", "(" * 5000, "9" * 5000, "1if 2else 3", "\0", "\ud800", "a b", ""],
)
def test_any_text_that_is_no_literal_is_itself(text: str) -> None:
    assert parse_literal(text) == text


def test_values_of_a_call_pass_the_same_gate() -> None:
    assert parse_call("dapo(clip_low={[]:1})") == ("dapo", {"clip_low": "{[]:1}"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), (" 007 ", 7), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("²", None), ("٣", None), ("-1", None)],
)
def test_whole_numbers(text: str, value: Any) -> None:
    assert parse_whole(text) == value
