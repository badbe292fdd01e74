"""Runs of `smollm2-sums`, one per objective and seed; what is finished is not run again."""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from testbed.finetune import FinetuneResult, FinetuneSettings, finished_run, load_settings, prepare_start, run_finetune
from testbed.output import missing_as_null

__all__ = ["CONFIGURATION", "finished", "folder_of", "train"]

CONFIGURATION = "smollm2-sums"
"""The configuration that all runs share but for objective and seed."""
MACHINE_FILE = "machine.json"


def settings_of(objective: str, seed: int, configuration: str = CONFIGURATION) -> FinetuneSettings:
    """What an objective is run with: the configuration, its updates written down."""
    return replace(load_settings(configuration), objective=objective, seed=seed, record=True)


def folder_of(folder: Path, objective: str, seed: int) -> Path:
    """Where the run of an objective and a seed lies.

    >>> folder_of(Path("runs"), "erc(base=dapo)", 3).as_posix()
    'runs/erc-base-dapo/3'
    """
    return folder / re.sub(r"[^a-z0-9_.]+", "-", objective.lower()).strip("-") / str(seed)


def finished(folder: Path, objective: str, seed: int, configuration: str = CONFIGURATION) -> FinetuneResult | None:
    """A run that is finished."""
    return finished_run(settings_of(objective, seed, configuration), folder_of(folder, objective, seed))


def train(folder: Path, objective: str, seed: int, configuration: str = CONFIGURATION) -> FinetuneResult:
    """Run an objective with a seed, unless that has been done; the weights are not kept.

    Raises:
        ConfigError: as `run_finetune`.
    """
    done = finished(folder, objective, seed, configuration)
    if done is not None:
        return done
    settings, where = settings_of(objective, seed, configuration), folder_of(folder, objective, seed)
    start = folder / "starts" / str(seed)
    prepare_start(replace(settings, objective="reinforce", record=False), start)
    shutil.rmtree(where, ignore_errors=True)
    began = time.perf_counter()
    done = run_finetune(settings, out=where, start=start)
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(),
        "seconds": time.perf_counter() - began,
    }
    (where / MACHINE_FILE).write_text(json.dumps(missing_as_null(facts)) + "\n", encoding="utf-8")
    for name in ("model", "start", "checkpoints"):
        shutil.rmtree(where / name, ignore_errors=True)
    return done


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, seed by seed; stopped, it goes on with the first run that is not finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objectives", nargs="+", default=["grpo"])
    parser.add_argument("--seeds", default="0:5", help="first:beyond")
    given = parser.parse_args(arguments)
    first, beyond = map(int, given.seeds.split(":"))
    for seed in range(first, beyond):
        for objective in given.objectives:
            done = train(given.folder, objective, seed)
            print(f"{objective} {seed}: {'; '.join(done.summary()[1:])}", flush=True)


if __name__ == "__main__":
    main()
