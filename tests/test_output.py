"""Places for results: taken at once, kept whole or not at all, and never two processes in one."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testbed import output
from testbed.errors import RunExistsError, StorageError
from testbed.output import free_folder, fresh_file, fresh_folder, kept_folder, new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full() -> OSError:
    # As a file's own write raises it: without a file's name.
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_fresh_folder_holds_what_was_written(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "deep" / "run") as folder:
        (folder / "table").write_text("1")
    assert names(folder) == ["table"]


def test_the_second_of_two_is_refused_at_once_and_disturbs_nothing(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "run") as folder:
        with pytest.raises(RunExistsError, match="already holds something; nothing was written"):
            fresh_folder(folder).__enter__()
        (folder / "table").write_text("1")
    assert names(folder) == ["table"]


def test_two_that_look_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both have seen an empty folder; taking it is one step, which one of them does first.
    monkeypatch.setattr(output, "free_folder", Path)
    with fresh_folder(tmp_path / "run") as folder:
        (folder / "table").write_text("1")
        with pytest.raises(RunExistsError, match="is being written by another process"):
            fresh_folder(folder).__enter__()
    assert names(folder) == ["table"]


def test_a_stranger_s_file_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "free_folder", Path)
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(RunExistsError, match="is being written by another process"):
        fresh_folder(tmp_path).__enter__()
    assert names(tmp_path) == ["kept"]


@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_left_of_what_failed(made: bool, tmp_path: Path) -> None:
    if made:
        (tmp_path / "run").mkdir()

    def fail() -> None:
        with fresh_folder(tmp_path / "run") as folder:
            (folder / "below").mkdir()
            (folder / "below" / "table").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == (["run"] if made else [])
    assert not made or names(tmp_path / "run") == []


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def fill() -> None:
        with fresh_folder(tmp_path / "run") as folder:
            (folder / "table").write_text("1")
            raise full()

    def fill_file() -> None:
        with fresh_file(tmp_path / "names.json"):
            raise full()

    with pytest.raises(
        StorageError, match=r"cannot write .*run: No space left on device\. Nothing was kept; make room"
    ):
        fill()
    with pytest.raises(StorageError, match=r"cannot write .*names\.json: No space left on device"):
        fill_file()
    assert names(tmp_path) == []


def test_other_errors_are_what_they_were(tmp_path: Path) -> None:
    def fail() -> None:
        with fresh_folder(tmp_path / "run"):
            (tmp_path / "missing").read_text()

    with pytest.raises(FileNotFoundError):
        fail()


def test_a_folder_that_keeps(tmp_path: Path) -> None:
    def stop(content: bool) -> None:
        with kept_folder(tmp_path / "run") as folder:
            if content:
                (folder / "block").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop(content=False)
    assert names(tmp_path) == []
    with pytest.raises(KeyboardInterrupt):
        stop(content=True)
    assert names(tmp_path / "run") == ["block"]


@pytest.mark.parametrize("occupied", ["file", "folder", "dangling"])
def test_an_occupied_place_is_refused(occupied: str, tmp_path: Path) -> None:
    place = tmp_path / "run"
    if occupied == "file":
        place.write_text("mine")
    elif occupied == "folder":
        place.mkdir()
        (place / "kept").write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunExistsError, match="already holds something"):
        free_folder(place)


def test_a_file_is_taken_before_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "new" / "names.json"
    with fresh_file(place) as file:
        assert file.read_text() == ""
        with pytest.raises(RunExistsError, match="already exists; nothing was written"):
            fresh_file(place).__enter__()
        file.write_text("1")
    assert place.read_text() == "1"


def test_names_by_the_clock_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "datetime", Clock)
    made = [str(new_folder("audit")) for _ in range(3)]
    assert made == [f"runs/audit-20260304-050607{suffix}" for suffix in ("", "-2", "-3")]
