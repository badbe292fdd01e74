"""A sweep's folder: what is planned, what is finished, and the checksums that hold the two together.

sweep.json      the plan: the configuration, the number of blocks, and the checksum of both
blocks/         one Parquet file per finished block, named with its own checksum and carrying the plan's
table.parquet   the run itself, with run.json, once all blocks are there
"""

from __future__ import annotations

import io
import json
import re
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from testbed.errors import ConfigError, RunExistsError, StorageError, TestbedWarning
from testbed.reading import read_json
from testbed.simulation.axes import shortened
from testbed.simulation.storage import digest_of, guard, is_intact, write_atomically, write_sealed

__all__ = [
    "LOCKS",
    "Plan",
    "StorageWarning",
    "every_block",
    "finished_blocks",
    "open_folder",
    "read_block",
    "write_block",
]

_PLAN, _BLOCKS, LOCKS = "sweep.json", "blocks", ".locks"
_CHECKSUM, _NUMBER = b"testbed.plan", b"testbed.block"
_NAME = re.compile(r"block-(\d{6,18})\.[0-9a-f]+\.parquet")


class StorageWarning(TestbedWarning):
    """Something on the disk was damaged and has been dealt with."""


@dataclass(frozen=True)
class Plan:
    """What a sweep's folder is for.

    Attributes:
        configuration: everything that decides a number, as plain data.
        blocks: how many blocks the replicas are cut into.
    """

    configuration: dict[str, Any]
    blocks: int

    @property
    def checksum(self) -> str:
        """SHA-256 of the plan, 64 hexadecimal digits."""
        return digest_of(self._content())

    def write(self, folder: Path) -> None:
        """Write the plan into a folder that has none."""
        content = {**self._content(), "checksum": self.checksum}
        write_atomically(folder / _PLAN, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of a folder.

        Raises:
            ConfigError: the folder has none.
            StorageError: it is not what was written.
        """
        path = folder / _PLAN
        if not path.is_file():
            raise ConfigError(f"{folder} holds no sweep; expected {_PLAN}, as run_sweep writes it")
        advice = "restore it, or begin in another folder"
        try:
            content = read_json(path)
        except ConfigError as error:
            raise StorageError(f"{path} is damaged ({error}); {advice}") from error
        match content:
            case {"sweep": dict(configuration), "blocks": int(blocks), "checksum": str(checksum)}:
                plan = cls(configuration, blocks)
            case _:
                raise StorageError(f"{path} is damaged: it holds no sweep, blocks and checksum; {advice}")
        if plan.checksum != checksum:
            raise StorageError(
                f"{path} is damaged: a plan of {blocks} blocks with this configuration does not have the checksum "
                f"beside it; {advice}"
            )
        return plan

    def _content(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "sweep": self.configuration}


def open_folder(folder: Path, plan: Plan, *, may_continue: bool) -> Path:
    """Create the folder with the plan, or check that it holds that plan.

    Args:
        folder: where.
        plan: of the sweep that wants to go there.
        may_continue: whether the plan may have been begun already.

    Raises:
        ConfigError: it holds a sweep with another configuration; the message says what differs.
        RunExistsError: it holds something else, or the plan has been begun and may not be continued.
        StorageError: it cannot be created, or its plan is damaged.
    """
    try:
        (folder / _BLOCKS).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot create {str(folder)!r}: {reason}; choose another out") from error
    with guard(folder / LOCKS):
        strangers = sorted({path.name for path in folder.iterdir()} - {_BLOCKS, LOCKS})
        if not (folder / _PLAN).is_file():
            if strangers:
                raise RunExistsError(f"{folder} already holds {strangers[0]}; nothing was written. Choose another out")
            plan.write(folder)
            return folder
    kept = Plan.read(folder)
    if kept.checksum != plan.checksum:
        changed = "; ".join(_differences(kept, plan))
        raise ConfigError(
            f"{folder} holds a sweep with another configuration: {changed}. Choose another out, or restore it"
        )
    if not may_continue:
        raise RunExistsError(f"{folder} already holds this sweep; continue with resume, or choose another out")
    return folder


def write_block(folder: Path, plan: Plan, number: int, table: pd.DataFrame) -> Path:
    """Write a finished block, whole or not at all."""
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    marks = {_CHECKSUM: plan.checksum.encode(), _NUMBER: str(number).encode()}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **marks}), buffer)
    return write_sealed(folder / _BLOCKS, f"block-{number:06d}", ".parquet", buffer.getvalue())


def finished_blocks(folder: Path, plan: Plan, *, set_damaged_aside: bool = False) -> dict[int, Path]:
    """The folder's whole blocks by number.

    Args:
        folder: of the sweep.
        plan: whose blocks they have to be.
        set_damaged_aside: whether a damaged one is renamed, so that it is computed again, instead of an error.

    Raises:
        StorageError: a block is damaged, of another plan, or there twice.
    """
    found: dict[int, Path] = {}
    for path in sorted((folder / _BLOCKS).glob("block-*.parquet")):
        try:
            number, _ = read_block(path, plan)
        except _DamagedError as error:
            if not set_damaged_aside:
                raise StorageError(
                    f"{error}. Run its shard again with resume, which computes this block anew, and merge again"
                ) from error
            aside = path.with_suffix(".damaged")
            path.rename(aside)
            warnings.warn(f"{error}. It was renamed {aside.name} and is computed again", StorageWarning, stacklevel=3)
            continue
        _file(found, number, path)
    return found


def every_block(folders: Sequence[Path], plan: Plan) -> list[Path]:
    """The files of all of a plan's blocks, in order, wherever they lie.

    Raises:
        StorageError: one is missing, damaged, not of this plan, or there twice with different content.
    """
    found: dict[int, Path] = {}
    for folder in folders:
        for number, path in finished_blocks(folder, plan).items():
            _file(found, number, path)
    missing = [number for number in range(plan.blocks) if number not in found]
    if missing:
        raise StorageError(
            f"{len(missing)} of {plan.blocks} blocks are missing, the first is number {missing[0]}; finish every "
            "shard, with resume where it was interrupted, and merge again"
        )
    return [found[number] for number in range(plan.blocks)]


def read_block(path: Path, plan: Plan) -> tuple[int, pd.DataFrame]:
    """A block's number and table.

    Raises:
        StorageError: it is damaged, or not one of the plan's blocks.
    """
    content = path.read_bytes()
    if not is_intact(path, content):
        raise _DamagedError(f"{path} is damaged: its {len(content)} bytes do not have the checksum in its name")
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        marks = {key: value.decode() for key, value in (table.schema.metadata or {}).items()}
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:
        raise StorageError(f"{path} is no block of a sweep ({error}); remove it") from error
    origin, number = marks.get(_CHECKSUM, "unknown"), marks.get(_NUMBER, "")
    if origin != plan.checksum:
        raise StorageError(
            f"{path} is a block of another sweep, or of a plan with other blocks (plan {origin[:8]}, expected "
            f"{plan.checksum[:8]}); remove it"
        )
    written = _NAME.fullmatch(path.name)
    if written is None or int(written[1]) != int(number) or int(number) >= plan.blocks:
        raise StorageError(
            f"{path} holds block {number} of a sweep of {plan.blocks}, numbered from 0, which is not what its name "
            "says or more than there are; remove it"
        )
    return int(number), frame


def _file(found: dict[int, Path], number: int, path: Path) -> None:
    """File a block under its number."""
    if found.setdefault(number, path).name != path.name:
        raise StorageError(
            f"{found[number]} and {path} are the same block with different content; delete the wrong one and resume "
            "its shard"
        )


class _DamagedError(StorageError):
    """A block whose bytes are not those that were written."""


# -- what changed ------------------------------------------------------------------------------------------------------


def _differences(kept: Plan, wanted: Plan) -> list[str]:
    before, now = kept.configuration, wanted.configuration
    fields = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    changed = [
        f"{name} was {reprlib.repr(before.get(name))} and is {reprlib.repr(now.get(name))}"
        for name in fields
        if name != "vary"
    ]
    if "vary" in fields:
        changed += _changed_axes(before.get("vary", []), now["vary"])
    return changed or [f"it has {kept.blocks} blocks and now {wanted.blocks}"]


def _changed_axes(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between the axes of two configurations; of long lists their number and the first difference."""
    was, is_now = ({axis["name"]: axis for axis in axes} for axes in (before, now))
    changed = []
    for name in dict.fromkeys([*was, *is_now]):
        if was.get(name) == is_now.get(name):
            continue
        first, second = (_axis(axes.get(name)) for axes in (was, is_now))
        values = zip(*(axes.get(name, {}).get("values", []) for axes in (was, is_now)), strict=False)
        place = next((number for number, (old, new) in enumerate(values) if old != new), None)
        if first == second and place is not None:
            first, second = (repr(axes[name]["values"][place]) for axes in (was, is_now))
            changed.append(f"value {place + 1} of {name} was {first} and is {second}")
        else:
            changed.append(f"{name} was {first} and is {second}")
    return changed or [f"vary was {', '.join(was)} and is {', '.join(is_now)}"]


def _axis(axis: Mapping[str, Any] | None) -> str:
    if axis is None:
        return "not varied"
    if "values" not in axis:
        return f"varied from {axis['low']} to {axis['high']}{' on a logarithmic scale' * axis['logarithmic']}"
    return f"varied over {shortened(axis['values'])}"
