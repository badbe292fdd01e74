"""Problem files in every form they come in, and one sentence for whatever is none."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from envs.math_tasks import load_task
from envs.problem_files import LONGEST_LINE, NumberText, read_rows
from testbed.errors import ConfigError

ROWS = [{"question": "1+1? é", "answer": "2"}, {"question": "2+2?", "answer": "4"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def problems(path: Path) -> list[tuple[str, str]]:
    return [(problem.prompt, problem.answer) for problem in load_task(path, template="plain")]


def stored(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.jsonl", LINES.encode()),
        ("windows.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("blank.jsonl", f"\n\n{LINES}\n\n".encode()),
        ("no-end.jsonl", LINES.rstrip("\n").encode()),
        ("lines.json", LINES.encode()),
        ("lines.txt", LINES.encode()),
        ("list.json", json.dumps(ROWS).encode()),
        ("pretty.json", json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
        ("list.jsonl", json.dumps(ROWS).encode()),
        ("utf-8.jsonl", codecs.BOM_UTF8 + LINES.encode()),
        ("utf-8-list.json", codecs.BOM_UTF8 + json.dumps(ROWS).encode()),
        ("utf-16-le.jsonl", codecs.BOM_UTF16_LE + LINES.encode("utf-16-le")),
        ("utf-16-be.jsonl", codecs.BOM_UTF16_BE + LINES.encode("utf-16-be")),
        ("utf-32.jsonl", LINES.encode("utf-32")),
        ("packed.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("packed.jsonl", gzip.compress(LINES.encode(), mtime=0)),
        ("packed.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("packed-utf-16.gz", gzip.compress(LINES.encode("utf-16"), mtime=0)),
    ],
)
def test_every_form_gives_the_same_problems(tmp_path: Path, name: str, content: bytes) -> None:
    assert problems(stored(tmp_path, name, content)) == [("1+1? é", "2"), ("2+2?", "4")]


def test_parquet(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")
    pd.DataFrame({"question": ["a", "b"], "answer": [3, 4]}).to_parquet(tmp_path / "numbers.bin")
    assert problems(tmp_path / "rows.parquet") == [("1+1? é", "2"), ("2+2?", "4")]
    assert problems(tmp_path / "numbers.bin") == [("a", "3"), ("b", "4")]


@pytest.mark.parametrize(
    "number", ["0.00001", "1e-05", "1E5", "145.0", "0.10", "12345678901234567890", "-7", "1.0000000000000000001"]
)
def test_numbers_stay_as_they_are_written(tmp_path: Path, number: str) -> None:
    path = stored(tmp_path, "rows.jsonl", f'{{"question": "q", "answer": {number}}}'.encode())
    assert load_task(path)[0].answer == number
    (row,) = read_rows(path)
    assert isinstance(row["answer"], NumberText)


def row(**fields: Any) -> bytes:
    return json.dumps({"question": "q", "answer": "1", **fields}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # no UTF-8
        ('{"question": "é", "answer": "2"}'.encode("latin-1"), r"is not text in UTF-8 .*save it as UTF-8"),
        (b"\xff\xfe\xff", "is not text in UTF-8"),
        ("{}\n".encode("utf-16-le"), "line 1 has zero bytes"),
        (b"\0\0\0\0", "line 1 has zero bytes"),
        # nested, long, huge
        (
            b'{"question": "q", "answer": ' + b"[" * 1000 + b"]" * 1000 + b"}",
            "nested too deep|has a list for an answer",
        ),
        (b'{"question": "q", "answer": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 1 is nested too deep"),
        (b"[" * 100_000, "nested too deep|is not JSON"),
        (b'{"a":' * 100_000, "nested too deep|is not JSON"),
        (b'{"question": "' + b"a" * 50_000_000 + b'", "answer": 1}', "line 1 has more than 1,000,000 characters"),
        (b'[{"question": "' + b"a" * 2_000_000 + b'", "answer": 1}]', "row 1 has a question of 2,000,000 characters"),
        (
            b'{"question": "q", "answer": ' + b"9" * 5000 + b"}",
            "the answer has 5,000 characters; expected at most 1,000",
        ),
        (b'{"question": "q", "answer": 1e999999999}', "cannot be read as mathematics"),
        # JSON, but not of problems
        (b'{"question": "q", "answer": 1, "answer": 2}', "line 1 is not JSON .*'answer' stands twice"),
        (b"question,answer\n1+1,2\n", "line 1 is not JSON"),
        (b'{"question": "q"', "line 1 is not JSON"),
        (b'{"question": "q", "answer": "1"}\n{"question"\n', "line 2 is not JSON"),
        (b'{"question": "q", "answer": "1"} {"question": "r", "answer": "2"}', "line 1 is not JSON"),
        (b"3", "row 1 is a number; expected an object"),
        (b"null", "row 1 is null; expected an object"),
        (b'"text"', "row 1 is a text; expected an object"),
        (b"[[1, 2]]", "row 1 is a list; expected an object"),
        (b'{"data": [{"question": "q", "answer": "1"}]}', "row 1 has no question: its fields are data"),
        (b"", "has no rows"),
        (b"[]", "has no rows"),
        # packed and of another kind
        (gzip.compress(LINES.encode(), mtime=0)[:30], "is damaged: its gzip stream"),
        (b"\x1f\x8bnothing", "is damaged: its gzip stream"),
        (b"PAR1 and then nothing of the kind", "begins like a Parquet file and cannot be read as one"),
        (b"PK\x03\x04rest", "is a ZIP archive; expected"),
        (b"\xfd7zXZ\x00rest", "is compressed by xz; expected"),
        (b"BZh91AY", "is compressed by bzip2; expected"),
        (b"\x28\xb5\x2f\xfdrest", "is compressed by zstd; expected"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        # cells
        (row(answer=["1"]), r'row 1 has a list for an answer; .*\{"any of": \[…\]\}'),
        (row(answer={"value": 2}), "row 1 has an answer that is an object"),
        (row(answer=True), "row 1 has an answer that is a truth value"),
        (row(answer=None), "row 1 has an empty answer"),
        (row(answer=""), "row 1 has an empty answer"),
        (row(answer=float("nan")), "row 1 has the answer NaN"),
        (row(answer="nan"), "row 1 cannot be graded: the answer is 'nan'"),
        (row(answer=float("inf")), "row 1 has the answer Infinity"),
        (row(answer={"any of": []}), "row 1 any of is|expected a list of texts"),
        (row(answer={"any of": [["1"]]}), "row 1 has an answer that is a list"),
        (row(answer={"any of": ["1", r"\frac{"]}), "row 1 cannot be graded"),
        (row(answer="\ud800"), "row 1 has half of a surrogate pair in its answer"),
        (row(question="\ud800"), "row 1 has half of a surrogate pair in its question"),
        (row(question=""), "row 1 has an empty question"),
        (row(question=" \n"), "row 1 has an empty question"),
        (row(question=None), "row 1 has a question that is null"),
        (row(question=3), "row 1 has a question that is a number"),
        (row(question={}), "row 1 has a question that is an object"),
        (row(question=[]), "row 1 has the question"),
        (row(question=["a"]), "row 1 has the question"),
        (row(question=[{"role": "user"}]), "row 1 has a question that is null"),
        (row(question=[{"role": "system", "content": "x"}]), "expected text, or a conversation with a user's turn"),
        (row(question=[{"role": "user", "content": ""}]), "row 1 has an empty question"),
        (row(question=[{"role": "user", "content": [{"type": "image", "url": "x"}]}]), "a part that is no text"),
        (row(question=[{"role": "user", "content": [{"type": "text", "text": None}]}]), "a part that is no text"),
        (row(question=[{"role": "user", "content": ["a"]}]), "a part that is no text"),
    ],
)
def test_one_sentence_for_what_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = stored(tmp_path, "rows.jsonl", content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_task(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "question",
    [
        [{"type": "text", "text": "what is 1+1"}],
        [{"role": "user", "content": "what is 1+1"}],
        [{"role": "user", "content": [{"type": "text", "text": "what is 1+1"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "what is "}, {"type": "text", "text": "1+1"}]}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "what is 1+1"}]},
        ],
    ],
)
def test_content_in_parts_is_text(tmp_path: Path, question: Any) -> None:
    path = stored(tmp_path, "rows.jsonl", row(question=question))
    assert load_task(path, template="plain")[0].prompt == "what is 1+1"


def test_all_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    rows = [ROWS[0], {"question": "q", "answer": ["1"]}, ROWS[1], {"question": "", "answer": "2"}]
    rows += [{"question": "q", "answer": r"\frac{1}{"}, {"question": "r", "answer": "1/2x"}]
    path = stored(tmp_path, "rows.jsonl", "".join(json.dumps(each) + "\n" for each in rows).encode())
    with pytest.raises(
        ConfigError, match=r"4 rows cannot be used: row 2 has a list .*; row 4 has an empty .*; row 5 .*…$"
    ):
        load_task(path)
    # What is not read is not judged.
    assert len(load_task(path, limit=1)) == 1


def test_acceptable_answers(tmp_path: Path) -> None:
    path = stored(tmp_path, "rows.jsonl", row(answer={"any of": ["1/2", "so\n#### 0.50"]}))
    assert load_task(path)[0].answer == '{"any of": ["1/2", "0.50"]}'
    assert (
        load_task([{"question": "q", "answer": ["1/2", 3]}], any_of_list=True)[0].answer == '{"any of": ["1/2", "3"]}'
    )


def test_the_longest_line_is_read(tmp_path: Path) -> None:
    shell = row(question="")
    path = stored(tmp_path, "rows.jsonl", row(question="a" * (LONGEST_LINE - len(shell))))
    assert len(problems(path)) == 1


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_task(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_rows(tmp_path))
