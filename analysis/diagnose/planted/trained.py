"""Language models trained with one setting broken: `python -m analysis.diagnose.planted.trained` adds a run at a time.

Every run is the configuration `cpu-smoke`, shortened and with the changes of its cause; the doctor reads its own log
and configuration. What is in docs/diagnose_trained.json is not run again, so that an interrupted measurement goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.diagnose.diagnosis import diagnose
from testbed.finetune import EvaluationSettings, FinetuneSettings, load_settings, run_finetune

__all__ = ["TRAINED", "TRAINED_RECORD", "TrainedCause", "measure_trained"]

TRAINED_RECORD = Path(__file__).resolve().parents[3] / "docs" / "diagnose_trained.json"

FIRST_SEED = 5001
"""Of the runs that judge; the changes were chosen on runs of seed 901."""


@dataclass(frozen=True)
class TrainedCause:
    """A setting of a fine-tuning run, broken.

    Attributes:
        name: its name in the table.
        expected: id of the rule that should come first; empty where nothing is broken.
        changes: fields of the configuration that differ from `cpu-smoke`.
        trainer: entries of its `trainer` that differ.
    """

    name: str
    expected: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, seed: int) -> FinetuneSettings:
        """The configuration of one run: twelve rollouts, hardly evaluated, as the doctor reads the log alone."""
        base = load_settings("cpu-smoke")
        trainer = {**base.trainer, "max_steps": 24, **self.trainer}
        once = EvaluationSettings(samples=1)
        return replace(base, seed=seed, trainer=trainer, evaluation=once, **self.changes)


TRAINED = (
    TrainedCause(
        "one update per rollout",
        "clipping-cannot-act",
        trainer={"per_device_train_batch_size": 512, "steps_per_generation": 1, "max_steps": 12},
    ),
    TrainedCause("a learning rate of zero", "learning-rate-zero", trainer={"learning_rate": 0.0}),
    TrainedCause("a step size far too large", "entropy-collapse", trainer={"learning_rate": 0.03}),
    TrainedCause(
        "an entropy bonus far too large",
        "entropy-explosion",
        changes={"objective": "entropy_bonus(base=dapo,coefficient=0.3)"},
    ),
    TrainedCause("GSPO with PPO's bounds", "clip-range", changes={"objective": "gspo(clip_low=0.2,clip_high=0.2)"}),
    TrainedCause("PPO with GSPO's bounds", "clip-range", changes={"objective": "grpo(clip_low=3e-4,clip_high=4e-4)"}),
    TrainedCause("a model that cannot do it yet", "reward-constant", changes={"warm_start": None}),
    TrainedCause("healthy: dapo", ""),
    TrainedCause("healthy: grpo", "", changes={"objective": "grpo"}),
    TrainedCause("healthy: sapo", "", changes={"objective": "sapo"}),
)


def measure_trained(
    seeds: int = 3,
    first_seed: int = FIRST_SEED,
    record: Path = TRAINED_RECORD,
    report: Callable[[str], None] = print,
) -> None:
    """Train what the record lacks, judge each run and write the record after each.

    Args:
        seeds: runs per cause.
        first_seed: of the first of them; the others follow.
        record: the file.
        report: called with one line per run.
    """
    runs: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    done = {(run["cause"], run["seed"]) for run in runs}
    for seed in range(first_seed, first_seed + seeds):
        for cause in TRAINED:
            if (cause.name, seed) in done:
                continue
            runs.append(_trained(cause, seed))
            record.write_text(json.dumps(runs, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            report(f"{cause.name}, seed {seed}: {runs[-1]['first'] or 'nothing'}")


def _trained(cause: TrainedCause, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = run_finetune(cause.settings(seed), out=Path(folder) / "run")
        log, config = result.folder / "log.jsonl", result.folder / "configuration.yaml"
        found, alone = diagnose(log, config), diagnose(log, {"none": "given"})
    return {
        "cause": cause.name,
        "expected": cause.expected,
        "seed": seed,
        "first": found.findings[0].id if found.findings else None,
        "worst": found.worst,
        "ids": [item.id for item in found.findings],
        "first_without_configuration": alone.findings[0].id if alone.findings else None,
        "worst_without_configuration": alone.worst,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and judge what the record lacks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--record", type=Path, default=TRAINED_RECORD)
    given = parser.parse_args(arguments)
    measure_trained(given.seeds, given.first_seed, given.record)


if __name__ == "__main__":
    main()
