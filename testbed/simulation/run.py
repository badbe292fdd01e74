"""`Run`: the finished table of a simulation, and how it is kept on disk."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from testbed.errors import ConfigError, shown
from testbed.output import fresh_folder
from testbed.reading import read_json

__all__ = ["Run", "environment_facts"]

_TABLE, _FACTS = "table.parquet", "run.json"


@dataclass(frozen=True)
class Run:
    """What a simulation measured.

    Attributes:
        table: one row per objective, replica and recorded step; columns `objective`, `replica`, `seed`, `step`
            (rollouts so far), `updates` (optimiser steps so far) and one per metric. See the glossary in
            `testbed.diagnostics` for every metric's formula and unit; a metric without data is NaN.
        facts: the settings, versions and master seed that produced it.
    """

    table: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write the table as Parquet and the facts as JSON into the folder `path`.

        Raises:
            RunExistsError: the folder is not empty; nothing is written.
        """
        with fresh_folder(path) as folder:
            self.table.to_parquet(folder / _TABLE, index=False)
            (folder / _FACTS).write_text(json.dumps(self.facts, indent=1, default=str) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read what `save` wrote.

        Raises:
            ConfigError: the folder does not hold a run, or one of its files is damaged.
        """
        folder = Path(path)
        if not (folder / _TABLE).is_file() or not (folder / _FACTS).is_file():
            raise ConfigError(f"{folder} holds no run; expected {_TABLE} and {_FACTS}, as written by Run.save")
        facts = read_json(folder / _FACTS)
        if not isinstance(facts, dict):
            raise ConfigError(f"{folder / _FACTS} holds {shown(facts)}; expected a mapping, as written by Run.save")
        try:
            return cls(pd.read_parquet(folder / _TABLE), facts)
        except Exception as error:
            # Whatever the reader of Parquet raises, which differs from version to version.
            raise ConfigError(f"{folder / _TABLE} is no Parquet table ({shown(str(error))}); restore it") from error

    def final(self) -> pd.DataFrame:
        """The rows of the last step."""
        last: pd.DataFrame = self.table[self.table["step"] == self.table["step"].max()]
        return last


@cache
def environment_facts(*also: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers, and of those named; some may not be installed."""
    packages = ("policy-objective-testbed", "torch", "numpy", "scipy", "gymnasium", "pandas", *also)
    facts = {"python": platform.python_version(), "machine": platform.machine()}
    for package in packages:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts
