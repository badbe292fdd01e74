"""Where results go: a folder or file that is new, taken before anything is computed, and given back if nothing comes.

Taking is one atomic step of the file system, so of two processes that ask for one place the second is refused at once.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.errors import RunExistsError, StorageError

__all__ = ["free_folder", "fresh_file", "fresh_folder", "kept_folder", "lacks_room", "missing_as_null", "new_folder"]

UNFINISHED = ".unfinished"
"""In a folder that is being written; what it holds is kept whole or not at all."""
RUNS = Path("runs")
"""Where folders go that nobody named."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def free_folder(path: str | Path) -> Path:
    """The folder `path`, which holds nothing if it exists.

    Raises:
        RunExistsError: it holds something, or is a file.
    """
    folder = Path(path)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunExistsError(
            f"{folder} already holds something; nothing was written. Choose another --out or remove it"
        )
    return folder


@contextlib.contextmanager
def kept_folder(path: str | Path | None, kind: str = "run") -> Iterator[Path]:
    """A folder that keeps what is finished in it, however the block ends; a new one that stays empty goes again.

    Args:
        path: the folder; `None`: a new one below `runs/`. What it may hold already is for the caller to say.
        kind: how the name of such a new one begins.
    """
    if path is None:
        folder, made = new_folder(kind), True
    else:
        folder = Path(path)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def fresh_folder(path: str | Path | None, kind: str = "run") -> Iterator[Path]:
    """A folder whose content is there when the block ends well, and not at all when it does not.

    Arguments as `kept_folder`; the folder holds nothing.

    Raises:
        RunExistsError: it holds something, or another process is writing it; nothing was written.
        StorageError: the disk is full or refuses the write; what was written is removed.
    """
    with kept_folder(path if path is None else free_folder(path), kind) as folder:
        _take(folder / UNFINISHED)
        if len(list(folder.iterdir())) > 1:
            (folder / UNFINISHED).unlink()
            raise _taken(folder)
        try:
            yield folder
            (folder / UNFINISHED).unlink()
        except BaseException as error:
            _empty(folder)
            if isinstance(error, OSError) and lacks_room(error):
                raise _refused(folder, error) from error
            raise


@contextlib.contextmanager
def fresh_file(path: str | Path) -> Iterator[Path]:
    """A file that is there, empty, while the block runs, and goes again if the block does not end well.

    Raises:
        RunExistsError: it exists; nothing was written.
        StorageError: the disk is full or refuses the write.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    _take(file)
    try:
        yield file
    except BaseException as error:
        with contextlib.suppress(OSError):
            file.unlink()
        if isinstance(error, OSError) and lacks_room(error):
            raise _refused(file, error) from error
        raise


def new_folder(kind: str) -> Path:
    """A folder below `runs/` that is made here and now, so that two processes never get one: `runs/KIND-TIME`."""
    RUNS.mkdir(exist_ok=True)
    name = f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for suffix in itertools.chain([""], map("-{}".format, itertools.count(2))):
        folder = RUNS / f"{name}{suffix}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


def missing_as_null(value: Any) -> Any:
    """JSON of a value at any depth: `None` for a number that is not finite, lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: missing_as_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [missing_as_null(item) for item in value]
    return value


def lacks_room(error: OSError) -> bool:
    """Whether the disk is full, over its quota, read-only or broken."""
    return error.errno in _NO_ROOM and not isinstance(error, StorageError)


def _take(file: Path) -> None:
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        raise (_taken(file.parent) if file.name == UNFINISHED else _exists(file)) from None


def _taken(folder: Path) -> RunExistsError:
    return RunExistsError(f"{folder} is being written by another process; nothing was written. Choose another --out")


def _exists(file: Path) -> RunExistsError:
    return RunExistsError(f"{file} already exists; nothing was written. Choose another --out or remove it")


def _refused(place: Path, error: OSError) -> StorageError:
    reason = os.strerror(error.errno or 0)
    return StorageError(
        f"cannot write {place}: {reason}. Nothing was kept; make room or choose another --out, and run it again"
    )


def _empty(folder: Path) -> None:
    """Remove what is in a folder that held nothing when it was taken."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
