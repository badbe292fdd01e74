"""Files that are there completely or not at all, that show damage, and that one process at a time writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from testbed.errors import StorageError

__all__ = ["digest_of", "guard", "hold", "is_intact", "write_atomically", "write_sealed"]

_DIGITS = 16


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write `content` so that `path` holds all of it or, after any interruption, what it held before.

    The bytes reach the disk under another name first; the name changes only then.

    Raises:
        StorageError: the disk is full or refuses the write; no partial file is left behind.
    """
    path = Path(path)
    temporary = None
    try:
        descriptor, temporary = _temporary(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. What was finished before is safe; make room or fix the "
            "folder, then continue with resume"
        ) from error
    return path


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open for writing; unlike `tempfile`'s, whoever may read its neighbours may read it."""
    while True:
        name = f"{path.parent}/.{path.name}.{secrets.token_hex(4)}.tmp"
        with contextlib.suppress(FileExistsError):
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), name


def write_sealed(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write `stem.DIGEST.suffix`, where the digest is that of the content, so that damage shows."""
    return write_atomically(folder / f"{stem}.{_digest(content)}{suffix}", content)


def is_intact(path: Path, content: bytes) -> bool:
    """Whether `content` is what the sealed file of this name was written with."""
    return path.suffixes[-2:-1] == [f".{_digest(content)}"]


def digest_of(data: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, 64 hexadecimal digits; the same after a way through JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def guard(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block, for moments only; the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "guard"):
        yield


@contextlib.contextmanager
def hold(folder: Path, name: str, group: str) -> Iterator[None]:
    """Keep `name` to this process, and keep out holders of names in another group, until the block ends.

    A lock disappears with its process, however that ends.

    Args:
        folder: where the locks are kept.
        name: what is locked, such as a shard.
        group: names in one group may be held side by side, such as shards of one division.

    Raises:
        StorageError: another process holds the name, or one of another group.
    """
    mine = FileLock(folder / f"{group}--{name}.lock")
    # Looking at the others and taking one's own must not interleave between two processes.
    with guard(folder):
        for other in sorted(folder.glob("*.lock")):
            if other.name.partition("--")[0] != group and _is_held(other):
                raise StorageError(
                    f"another process is writing to {folder.parent} as {other.stem.partition('--')[2]}; "
                    "wait for it, or choose another folder"
                )
        try:
            mine.acquire(timeout=0)
        except Timeout:
            raise StorageError(
                f"another process is writing to {folder.parent} as {name}; wait for it, give each process a shard of "
                "its own, or choose another folder"
            ) from None
    try:
        yield
    finally:
        mine.release()


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _sync_folder(folder: Path) -> None:
    # The new name itself must survive a power cut; not every system lets a folder be opened for that.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
