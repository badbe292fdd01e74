"""Files that are there completely or not at all, and folders that one process at a time writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import StorageError
from testbed.simulation.storage import digest_of, guard, hold, is_intact, write_atomically, write_sealed


def test_the_bytes_are_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    write_atomically(tmp_path / "file", b"new")
    # The file, its name, and the folder that holds the name.
    assert calls == ["fsync", "replace", "fsync"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_name_that_cannot_change_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_atomically(tmp_path / "file", b"old")

    def refused(*_: Any) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(StorageError, match=r"cannot write .*file: Permission denied. What was finished before is safe"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("damage", [b"", b"x" * 999, b"x" * 1001, b"x" * 500 + b"y" + b"x" * 499, b"y" + b"x" * 999])
def test_a_seal_sees_any_damage(tmp_path: Path, damage: bytes) -> None:
    path = write_sealed(tmp_path, "block-000001", ".parquet", b"x" * 1000)
    assert is_intact(path, path.read_bytes())
    assert not is_intact(path, damage)


def test_a_digest_knows_no_order_of_keys_but_every_value() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    others = [{"a": 1, "b": [2, 1]}, {"a": 1.5, "b": [1, 2]}, {"a": 1}, {"a": "1", "b": [1, 2]}]
    assert len({digest_of(data) for data in ({"a": 1, "b": [1, 2]}, *others)}) == 5


def test_a_name_is_held_by_one_and_free_again_afterwards(tmp_path: Path) -> None:
    with hold(tmp_path, "shard 1 of 2", "2"):
        with pytest.raises(StorageError, match="as shard 1 of 2; wait for it, give each process a shard of its own"):
            hold(tmp_path, "shard 1 of 2", "2").__enter__()
        with hold(tmp_path, "shard 2 of 2", "2"):
            pass
        with pytest.raises(StorageError, match="as shard 1 of 2; wait for it, or choose another folder"):
            hold(tmp_path, "shard 1 of 3", "3").__enter__()
    with hold(tmp_path, "shard 1 of 2", "2"), guard(tmp_path):
        pass


def test_a_name_is_free_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with hold(tmp_path, "shard 1 of 1", "1"):
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    with hold(tmp_path, "shard 1 of 1", "1"):
        pass
