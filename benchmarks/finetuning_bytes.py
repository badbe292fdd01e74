"""Whether two checkouts fine-tune to the same bytes: logs, weights and evaluations, whole runs and resumed ones.

    python benchmarks/finetuning_bytes.py OTHER_CHECKOUT

Needs the `llm` extra. Each run is tiny, and together they go through what a step can be: several micro-batches, an
objective that reads the whole batch, a memory of prompts, dynamic sampling, routing replay, an adapter with a
reference. Exit with 1 where a byte differs; times are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

SHARED: dict[str, Any] = {
    "model": "qwen2-0.1m",
    "train": {"source": "arithmetic(level=1,count=16)"},
    "test": {"source": "arithmetic(level=1,count=4)", "split": "test"},
    "warm_start": {"target": 0.02, "ceiling": 0.9, "check_every": 10, "learning_rate": 0.003},
    "evaluation": {"samples": 2},
    "device": "cpu",
}
TRAINER = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "num_iterations": 2,
    "max_completion_length": 8,
    "learning_rate": 0.01,
    "save_steps": 1,
    "save_total_limit": 9,
}
RUNS: dict[str, dict[str, Any]] = {
    "erc, micro-batches": {"objective": "erc(base=dapo)"},
    "bapo, the whole batch": {"objective": "bapo", "overlong_cache": 4},
    "dcpo, a memory of prompts, dynamic sampling": {"objective": "dcpo", "dynamic_sampling": 3},
    "gspo, routing replay": {"objective": "gspo", "model": "qwen3-moe-0.1m", "routing_replay": True},
    "an adapter with a reference": {"objective": "reference_kl(base=grpo)", "lora": {"r": 2}},
}
CUT = 2
TIMED = ("step_time", "seconds", "training_seconds")


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of a run's numbers, by what they are."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if key not in TIMED} for row in rows]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["facts"] = {key: value for key, value in evaluation["facts"].items() if key not in TIMED}
    (weights,) = (folder / "model").glob("*.safetensors")
    parts = {
        "log": json.dumps(rows).encode(),
        "evaluation": json.dumps(evaluation).encode(),
        "samples": (folder / "samples.jsonl").read_bytes(),
        "weights": weights.read_bytes(),
    }
    return {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}


def fingerprint(settings: dict[str, Any], folder: Path) -> dict[str, dict[str, str]]:
    """Digests of a run, and of the same run killed after a checkpoint and resumed."""
    import yaml

    from testbed.finetune import run_finetune

    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**SHARED, **settings, "trainer": TRAINER}))
    run_finetune(path, out=folder / "whole")
    shutil.copytree(folder / "whole", folder / "cut")
    shutil.rmtree(folder / "cut" / "model")
    for step in range(CUT + 1, TRAINER["max_steps"] + 1):
        shutil.rmtree(folder / "cut" / "checkpoints" / f"checkpoint-{step}")
    evaluation = json.loads((folder / "cut" / "evaluation.json").read_text())
    (folder / "cut" / "evaluation.json").write_text(json.dumps({"before": evaluation["before"]}))
    run_finetune(path, resume=True, out=folder / "cut")
    return {"whole": digest(folder / "whole"), "resumed": digest(folder / "cut")}


def measured_here() -> dict[str, Any]:
    """The digests of the code that is imported."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        found = {}
        for name, settings in RUNS.items():
            folder = Path(scratch) / str(len(found))
            folder.mkdir()
            found[name] = fingerprint(settings, folder)
        return found


def measured_in(checkout: Path) -> dict[str, Any]:
    """The digests of a checkout's code, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--here"], cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    if sys.argv[1:] == ["--here"]:
        print(json.dumps(measured_here()))
        return
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("finetuning_bytes: give the folder of the other checkout")
    mine, other = (measured_in(folder.resolve()) for folder in (Path(__file__).parents[1], Path(sys.argv[1])))
    different = 0
    for name in RUNS:
        for kind in ("whole", "resumed"):
            pairs = {part: mine[name][kind][part] == other[name][kind][part] for part in mine[name][kind]}
            different += not all(pairs.values())
            shown = ", ".join(f"{part} {'same' if same else 'DIFFERENT'}" for part, same in pairs.items())
            print(f"{name:<45} {kind:<8} {shown}")
        print(f"{name:<45} resumed as whole: {mine[name]['whole'] == mine[name]['resumed']}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
