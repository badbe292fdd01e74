"""The language-model side: one folder of runs, each a seed of an arm, shared by all claims that need it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.trajectories import Trajectories
from analysis.transfer.comparison import Arm, Scale
from testbed.errors import ConfigError
from testbed.finetune import EVALUATION_FILE, FinetuneResult, finished_run, prepare_start, run_finetune

__all__ = ["RECENT_REWARD", "SUCCESS", "run_table", "start_folder", "train", "train_start", "trajectories"]

SUCCESS = "evaluation/success"
"""Share of right answers in the evaluation before training, and in the one after it."""
RECENT = 4
RECENT_REWARD = "reward/recent"
"""Mean reward of the last `RECENT` rollouts: that of one is too noisy to compare arms at equal reward."""
_OF_THE_ROLLOUT = ("reward/mean", "entropy/mean", "group/zero_variance_fraction", "completions/mean_length")
"""Metrics of a rollout, taken from its first update, before the policy has left the one that wrote the responses."""


def start_folder(folder: Path, scale: Scale, family: str, seed: int) -> Path:
    """Where a warm start lies that all arms of a seed share."""
    return folder / "starts" / f"{scale.models[family]}-{seed}"  # type: ignore[index]


def run_folder(folder: Path, arm: Arm, seed: int) -> Path:
    """Where the run of an arm lies; two claims with the same arm find the same run."""
    readable = re.sub(r"[^a-z0-9.]+", "-", arm.objective.lower()).strip("-")
    digest = hashlib.sha256(json.dumps(asdict(arm), sort_keys=True).encode()).hexdigest()[:8]
    return folder / "runs" / f"{readable}-{digest}" / str(seed)


def train_start(folder: Path, scale: Scale, family: str, seed: int) -> None:
    """Warm-start a model, unless that has been done."""
    _use_one_thread()
    where = start_folder(folder, scale, family, seed)
    settings = Arm(objective="reinforce", model=family).settings(scale, seed)  # type: ignore[arg-type]
    if not (where / EVALUATION_FILE).is_file():
        shutil.rmtree(where, ignore_errors=True)
    prepare_start(settings, where)


def train(folder: Path, scale: Scale, arm: Arm, seed: int) -> None:
    """Train an arm, unless that has been done; what an interrupted call left of this run is done again.

    Raises:
        ConfigError: the folder holds a run of other settings.
    """
    _use_one_thread()
    where, settings = run_folder(folder, arm, seed), arm.settings(scale, seed)
    if finished_run(settings, where) is not None:
        return
    shutil.rmtree(where, ignore_errors=True)
    run_finetune(settings, out=where, start=start_folder(folder, scale, arm.model, seed))
    shutil.rmtree(where / "model")
    shutil.rmtree(where / "start")


def trajectories(folder: Path, scale: Scale, arm: Arm, seeds: Iterable[int]) -> Trajectories:
    """What an arm did, rollout by rollout, in every seed."""
    tables = []
    for seed in seeds:
        run = finished_run(arm.settings(scale, seed), run_folder(folder, arm, seed))
        if run is None:
            raise ConfigError(f"{run_folder(folder, arm, seed)} holds no finished run")
        tables.append(run_table(run, arm.updates_per_rollout).assign(seed=seed))
    return Trajectories(pd.concat(tables, ignore_index=True))


def run_table(run: FinetuneResult, updates_per_rollout: int) -> pd.DataFrame:
    """One row per rollout, as in a toy's table; row 0 is the policy before training.

    Ratios, clip shares and other metrics of an update are averaged over the updates of a rollout, the first left out
    where there are several: its ratios are 1 by construction. What describes the rollout is taken from that first one.
    """
    rows: list[dict[str, float]] = [{"step": 0, SUCCESS: run.evaluation["before"]["average"]["value"]}]
    for number, start in enumerate(range(0, len(run.log), updates_per_rollout), start=1):
        updates = run.log[start : start + updates_per_rollout]
        later = updates[1:] or updates
        row = {key: _mean(later, key) for key in updates[0] if key not in _OF_THE_ROLLOUT}
        row |= {key: _mean(updates[:1], key) for key in _OF_THE_ROLLOUT}
        row["gradient/norm"] = _mean(updates, "gradient/norm")
        rows.append(row | {"step": number})
    rows[-1][SUCCESS] = run.evaluation["after"]["average"]["value"]
    table = pd.DataFrame(rows)
    return table.assign(**{RECENT_REWARD: table["reward/mean"].rolling(RECENT).mean()})


def _mean(updates: Sequence[Mapping[str, Any]], key: str) -> float:
    values = [update[key] for update in updates if isinstance(update.get(key), int | float)]
    return float(np.mean(values)) if values else np.nan


def _use_one_thread() -> None:
    """Runs share a machine; each keeps to one core."""
    import torch

    torch.set_num_threads(1)
