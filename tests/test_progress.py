"""A bar on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import io
import sys

import pytest

from testbed import progress
from testbed.progress import LateProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_every_half_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with LateProgress("judging", 5) as bar:
        for seconds in (10, 31, 40, 70, 200):
            clock[0] = 100.0 + seconds
            bar.advance()
    # Not after 10 s, nor 9 s after the line before, nor when all is done.
    assert capsys.readouterr().err == "judging: 2 of 5 after 31 s\njudging: 4 of 5 after 70 s\n"


def test_a_terminal_gets_a_bar_once_it_takes_long(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with LateProgress("judging", 3) as bar:
        clock[0] += 1
        bar.advance()
        assert shown.getvalue() == ""
        clock[0] += 2
        bar.advance()
    assert "judging" in shown.getvalue()


def test_a_worker_says_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.multiprocessing.current_process(), "_name", "LokyProcess-1")
    with LateProgress("simulating", 3) as bar:
        clock[0] += 100
        bar.advance()
    assert capsys.readouterr().err == ""
