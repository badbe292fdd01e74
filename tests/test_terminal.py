"""Letters that an encoding lacks: a stand-in for each, and never an exception."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.terminal import STAND_INS, make_printable, printable, stand_in

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gbk", "utf-8"])
def test_every_letter_of_the_project_can_be_shown(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not all of the folder: an environment in it holds other people's files, in any encoding.
    files = [path for room in ("analysis", "envs", "models", "testbed") for path in (ROOT / room).rglob("*.py")]
    letters = sorted({letter for path in files for letter in path.read_text(encoding="utf-8")})
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    make_printable()
    print("".join(letters), "\ud800")
    for letter in letters:
        try:
            letter.encode(encoding)
        except UnicodeEncodeError:
            assert printable(letter) == stand_in(letter)
        else:
            assert printable(letter) == letter


def test_stand_ins_are_ascii_and_say_something() -> None:
    assert all(text.isascii() and text for text in STAND_INS.values())
    assert stand_in("Ω") == "Omega"
    assert stand_in("¼") == "1/4"
    # Neither a letter with an accent nor in the table.
    assert stand_in("語") == "?"


@pytest.mark.parametrize(
    ("encoding", "bounds"),
    [
        ("ascii", "low(q)  = 1/2 + 1/2sqrtmax(1 - 4epsilon_low/q, 0)"),
        # Latin-1 has the half, gbk the root and the Greek letters.
        ("latin-1", "low(q)  = ½ + ½sqrtmax(1 - 4epsilon_low/q, 0)"),
        ("gbk", "low(q)  = 1/2 + 1/2√max(1 - 4ε_low/q, 0)"),
    ],
)
def test_a_formula_in_another_encoding(encoding: str, bounds: str) -> None:
    command = [sys.executable, "-m", "testbed", "show", "dcpo"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False)
    assert done.returncode == 0, done.stderr
    assert bounds in done.stdout.decode(encoding)
