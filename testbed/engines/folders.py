"""Folders that are whole or passed over: a run that is killed while it writes leaves nothing that looks finished.

What a folder holds is written down last of all. A folder without that list, or that lacks a file or a part of one, was
not finished or was damaged since.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.errors import ConfigError, StorageError
from testbed.reading import read_json
from testbed.simulation.storage import write_atomically

__all__ = ["CONTENTS_FILE", "flaw", "seal", "storing", "unseal", "write_whole"]

CONTENTS_FILE = "contents.json"
"""Bytes of every other file of a folder, by its path in it."""


def seal(folder: Path) -> None:
    """Write down what the folder holds; from then on it counts as whole.

    Raises:
        StorageError: the disk refuses the write.
    """
    contents = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CONTENTS_FILE
    }
    write_atomically(folder / CONTENTS_FILE, (json.dumps(contents, indent=1) + "\n").encode())


def unseal(folder: Path) -> None:
    """Before a folder is written again: until it is sealed it does not count."""
    (folder / CONTENTS_FILE).unlink(missing_ok=True)


def flaw(folder: Path) -> str | None:
    """Why a folder is not whole, as the end of a sentence; `None` if it is."""
    if not folder.is_dir():
        return "it is not there"
    if not (folder / CONTENTS_FILE).is_file():
        return f"it was not finished ({CONTENTS_FILE} is not there)"
    try:
        contents = read_json(folder / CONTENTS_FILE)
    except ConfigError as error:
        return str(error)
    if not isinstance(contents, dict):
        return f"its {CONTENTS_FILE} is no list of files"
    for name, size in contents.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
    return None


def write_whole(folder: Path, write: Callable[[Path], object]) -> None:
    """Have a folder written beside its place and put there when it is whole; one that is there already is replaced.

    Raises:
        StorageError: the disk refuses the write.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with storing(folder):
        partial.mkdir(parents=True)
        write(partial)
        seal(partial)
        if folder.exists():
            unseal(folder)
            shutil.rmtree(folder)
        partial.rename(folder)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what libraries raise when the disk is full or refuses a write into one sentence.

    Raises:
        StorageError: the block could not write.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, StorageError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"cannot write {path}: {reason}. What was finished before is safe; make room or fix the folder, then "
            "continue with --resume"
        ) from error
    except RuntimeError as error:
        # PyTorch's writer of archives knows no other exception.
        if "PytorchStreamWriter" not in str(error):
            raise
        raise StorageError(
            f"cannot write {path}: {str(error).splitlines()[0]}. What was finished before is safe; make room or fix "
            "the folder, then continue with --resume"
        ) from error
