"""Folders that count only when they are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from testbed.engines.folders import flaw, seal, storing, unseal, write_whole
from testbed.errors import StorageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "a").write_text("four")
    (made / "b").touch()
    seal(made)
    return made


def test_a_sealed_folder_is_whole(folder: Path) -> None:
    assert flaw(folder) is None
    (folder / "added").touch()
    assert flaw(folder) is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "b").unlink(), "b is missing"),
        (lambda folder: (folder / "deep" / "a").write_text("for"), "deep/a has 3 of 4 bytes"),
        (unseal, "it was not finished (contents.json is not there)"),
        (lambda folder: (folder / "contents.json").write_text("[]"), "its contents.json is no list of files"),
        (lambda folder: folder.rename(folder.with_name("gone")), "it is not there"),
    ],
)
def test_says_what_is_wrong(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    assert flaw(folder) == said


def test_a_list_of_files_that_was_cut_is_no_list(folder: Path) -> None:
    (folder / "contents.json").write_text('{"b')
    assert "contents.json is no valid JSON" in str(flaw(folder))


def test_a_folder_appears_when_it_is_whole(folder: Path) -> None:
    seen: list[str | None] = []

    def write(partial: Path) -> None:
        seen.append(flaw(folder))
        (partial / "c").write_text("new")

    write_whole(folder, write)
    assert seen == [None]
    assert flaw(folder) is None
    assert {path.name for path in folder.iterdir()} == {"c", "contents.json"}
    assert not folder.with_name("made.partial").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError(
            "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0\nmore"
        ),
    ],
)
def test_a_full_disk_is_one_sentence(tmp_path: Path, error: Exception) -> None:
    def fill() -> None:
        with storing(tmp_path / "model"):
            raise error

    with pytest.raises(StorageError, match=r"cannot write .*/model: .*(space|writing).*continue with --resume"):
        fill()


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    def fail() -> None:
        with storing(tmp_path):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fail()
