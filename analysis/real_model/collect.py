"""From a folder of runs to docs/pretrained.json: success before and after, curves, and the statements judged."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.real_model.runs import CONFIGURATION, MACHINE_FILE, finished, folder_of
from analysis.real_model.statements import OBJECTIVES, STATEMENTS, label
from analysis.replay.walk import Replay, replay
from analysis.statistics import VERDICT_LEVEL, judge
from testbed.finetune import RECORD_FOLDER, FinetuneResult
from testbed.objectives import make_objective
from testbed.output import missing_as_null
from testbed.records import read_record

__all__ = ["PROBABILITIES", "RECORD", "by_probability", "collect"]

RECORD = Path(__file__).resolve().parents[2] / "docs" / "pretrained.json"
PROBABILITIES = (0.0, 0.01, 0.1, 0.5, 0.8, 0.9, 1.0)
"""Bounds of the ranges of old probability; a token on a bound belongs to the range above it."""
SHARES = (
    "stopped",
    "clip/fraction",
    "clip/high_fraction",
    "clip/low_fraction",
    "erc/masked_fraction",
    "band/outside_fraction",
    "band/outside_probability",
    "band/inside_probability",
    "band/outside_entropy",
    "band/inside_entropy",
    "mass",
)
"""Of the objectives that are laid over the tokens of a run."""


def collect(
    folder: Path, trained: Sequence[str], seeds: Sequence[int], configuration: str = CONFIGURATION
) -> dict[str, Any]:
    """Everything the page says.

    Args:
        folder: where the runs lie.
        trained: objectives that were trained; what is not finished is left out and counted.
        seeds: of them.
        configuration: what they were run with.
    """
    runs = {
        objective: {
            seed: run for seed in seeds if (run := finished(folder, objective, seed, configuration)) is not None
        }
        for objective in trained
    }
    base = {seed: _replayed(folder, "grpo", seed) for seed in runs.get("grpo", {})}
    return missing_as_null(
        {
            "configuration": configuration,
            "seeds": list(seeds),
            "processors": os.cpu_count(),
            "versions": {name: metadata.version(name) for name in ("torch", "transformers", "trl")},
            "runs": {
                objective: {str(seed): _run(folder, objective, seed, run) for seed, run in found.items()}
                for objective, found in runs.items()
            },
            "statements": [_judged(statement, base) for statement in STATEMENTS],
            "shares": _shares(list(base.values())),
            "by_probability": by_probability([folder_of(folder, "grpo", seed) / RECORD_FOLDER for seed in base]),
            "likely": {str(seed): _likely(run) for seed, run in base.items()},
            "order": _order(runs),
        }
    )


def _replayed(folder: Path, objective: str, seed: int) -> Replay:
    return replay(folder_of(folder, objective, seed) / RECORD_FOLDER, list(OBJECTIVES.values()))


def _run(folder: Path, objective: str, seed: int, run: FinetuneResult) -> dict[str, Any]:
    kept = ("average", "any_right", "greedy", "unfinished", "k", "problems")
    evaluation = run.evaluation
    machine = folder_of(folder, objective, seed) / MACHINE_FILE
    return {
        "before": {name: evaluation["before"][name] for name in kept},
        "after": {name: evaluation["after"][name] for name in kept},
        "difference": evaluation["difference"],
        "beyond": {phase: evaluation["beyond"][phase]["average"] for phase in ("before", "after")},
        "seconds": evaluation["facts"]["seconds"],
        "peak_bytes": evaluation["facts"]["peak_bytes"],
        "machine": json.loads(machine.read_text(encoding="utf-8")) if machine.is_file() else {},
        "entropy": [row["entropy/mean"] for row in run.log],
        "clipped": [row.get("clip/fraction") for row in run.log],
        "reward": [row["reward/mean"] for row in run.log if "reward/mean" in row],
    }


def _judged(statement: Any, runs: Mapping[int, Replay]) -> dict[str, Any]:
    values = [statement.value(run) for run in runs.values()]
    low: float | None = None
    high: float | None = None
    if not values or not np.isfinite(values).all():
        verdict, reason = "inconclusive", f"{len(values)} runs, and not a value in each"
        estimate = float(np.mean(values)) if values else None
    else:
        judged = judge(values, statement.direction, statement.threshold, VERDICT_LEVEL, support=statement.support)
        verdict, reason = judged.verdict, judged.reason
        low, high, estimate = judged.low, judged.high, judged.estimate
    return {
        "number": statement.number,
        "sentence": statement.sentence,
        "formula": statement.formula,
        "direction": statement.direction,
        "threshold": statement.threshold,
        "unit": statement.unit,
        "values": values,
        "estimate": estimate,
        "low": low,
        "high": high,
        "verdict": verdict,
        "reason": reason,
    }


def _shares(runs: Sequence[Replay]) -> dict[str, dict[str, float | None]]:
    """Mean over runs of what each objective does with the same tokens."""
    if not runs:
        return {}
    tables = [run.summary() for run in runs]
    return {
        name: {
            column: float(np.mean([table[column][label(name)] for table in tables]))
            for column in SHARES
            if column in tables[0]
        }
        for name in OBJECTIVES
    }


def by_probability(records: Sequence[Path]) -> dict[str, dict[str, list[float | None]]]:
    """Of the tokens in a range of old probability, the share that each objective stops, over all later updates.

    Args:
        records: folders; the first update of a rollout, whose ratios are 1, is left out.

    Returns:
        Objective to `stopped`: of the tokens with an advantage other than 0, those without a gradient, by
        `PROBABILITIES`; and `tokens`, the share of all such tokens that the range holds. None where it holds none.
    """
    edges = torch.tensor(PROBABILITIES, dtype=torch.float64)
    ranges = len(PROBABILITIES) - 1
    counted = torch.zeros(ranges, dtype=torch.float64)
    stopped = {name: torch.zeros(ranges, dtype=torch.float64) for name in OBJECTIVES}
    for record in records:
        for update in read_record(record).updates():
            if update.update == 0:
                continue
            batch = update.batch()
            pushed = batch.mask & (batch.advantages != 0)
            place = torch.bucketize(batch.old_log_probs.double().exp(), edges[1:-1], right=True)
            counted += torch.bincount(place[pushed], minlength=ranges)
            for name, written in OBJECTIVES.items():
                objective, leaf = make_objective(written), batch.log_probs.detach().clone().requires_grad_()
                loss = objective.token_loss(batch.with_current(leaf, batch.entropies)).sum()
                (slope,) = torch.autograd.grad(loss, leaf)
                stopped[name] += torch.bincount(place[pushed & (slope == 0)], minlength=ranges)
    shares = (counted / counted.sum()).tolist()
    return {
        name: {
            "stopped": [float(part / all_) if all_ else None for part, all_ in zip(parts, counted, strict=True)],
            "tokens": shares,
        }
        for name, parts in stopped.items()
    }


def _likely(run: Replay) -> list[float]:
    """Share of likely tokens in the first update of every rollout."""
    rows = run.table[(run.table["objective"] == label("grpo")) & (run.table["update"] == 0)]
    return [float(value) for value in rows.sort_values("step")["probability/likely_fraction"]]


def _order(runs: Mapping[str, Mapping[int, FinetuneResult]]) -> list[dict[str, Any]]:
    """Mean entropy over a run of every other objective, less that of grpo from the same start."""
    found = []
    for objective in runs:
        both = sorted(set(runs[objective]) & set(runs.get("grpo", {})))
        if objective == "grpo" or not both:
            continue
        values = [_mean_entropy(runs[objective][seed]) - _mean_entropy(runs["grpo"][seed]) for seed in both]
        judged = judge(values, "greater", 0.0, VERDICT_LEVEL)
        verdict = "higher" if judged.verdict == "reproduced" else "lower" if judged.opposite else "undecided"
        found.append(
            {
                "objective": objective,
                "values": values,
                "estimate": judged.estimate,
                "low": judged.low,
                "high": judged.high,
                "verdict": verdict,
            }
        )
    return found


def _mean_entropy(run: FinetuneResult) -> float:
    return float(np.mean([row["entropy/mean"] for row in run.log]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write docs/pretrained.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES))
    parser.add_argument("--seeds", default="0:5", help="first:beyond")
    parser.add_argument("--out", type=Path, default=RECORD)
    given = parser.parse_args(arguments)
    first, beyond = map(int, given.seeds.split(":"))
    found = collect(given.folder, given.objectives, range(first, beyond))
    given.out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
