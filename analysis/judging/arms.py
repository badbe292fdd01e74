"""The arms of an experiment: simulated once, however many claims read them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.trajectories import Trajectories
from testbed.diagnostics import GLOSSARY
from testbed.simulation import simulate

__all__ = ["ArmCache", "lean", "run_arms"]


class ArmCache:
    """Tables of finished arms in a folder that several processes may share.

    Seeds do not depend on which others run beside them, so a table of many seeds also serves whoever needs fewer.

    Args:
        folder: an existing folder of this program's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, arguments: Mapping[str, Any], seeds: int, seed: int) -> pd.DataFrame:
        """`simulate(**arguments, seeds=seeds, seed=seed).table`, simulated only where it is not there yet."""
        path = self._path({**arguments, "seed": seed})
        # A table with all metrics also serves whoever needs only the exact ones.
        for stored in (self._path({**arguments, "seed": seed, "sampled_metrics": True}), path):
            if stored.is_file():
                found: pd.DataFrame = pd.read_parquet(stored)
                if found["seed"].max() + 1 >= seeds:
                    return found[found["seed"] < seeds]
        table = simulate(**arguments, seeds=seeds, seed=seed).table
        # Whole or not at all: another process may be reading.
        unfinished = path.with_suffix(f".{os.getpid()}")
        table.to_parquet(unfinished, index=False)
        unfinished.replace(path)
        return table

    def _path(self, arguments: Mapping[str, Any]) -> Path:
        written = json.dumps({"sampled_metrics": True, **arguments}, sort_keys=True, default=repr)
        return self._folder / f"{hashlib.sha256(written.encode()).hexdigest()}.parquet"


def lean(setting: Mapping[str, Any], description: str) -> dict[str, Any]:
    """The setting, without measuring sampled batches where a description names exact metrics alone."""
    read = {name for name in GLOSSARY if re.search(rf"\b{name}\b", description)}
    exact_only = bool(read) and all(name.startswith("exact/") for name in read)
    return {**setting, "sampled_metrics": False} if exact_only else dict(setting)


def run_arms(
    setting: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    seeds: int,
    seed: int,
    cache: ArmCache | None = None,
) -> dict[str, Trajectories]:
    """The trajectories of every arm, over paired seeds.

    Args:
        setting: arguments of `simulate` shared by all arms.
        arms: name to the arguments that differ.
        seeds: number of seeds.
        seed: master seed.
        cache: where finished arms are kept; `None`: nowhere.
    """
    tables = {}
    for name, arm in arms.items():
        arguments = {**setting, **arm}
        if cache is None:
            tables[name] = simulate(**arguments, seeds=seeds, seed=seed).table
        else:
            tables[name] = cache.table(arguments, seeds, seed)
    return {name: Trajectories(table) for name, table in tables.items()}
