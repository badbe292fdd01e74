"""Whether two checkouts compute the same bytes: the proof of a change that should not alter any number.

    git worktree add ../before main
    python benchmarks/compare_checkouts.py ../before . [--only simulate --only claims …] [--seeds 8] [--without NAME …]

Every part runs each checkout's own code (through PYTHONPATH, in a process and a folder of its own) with this
interpreter and prints the SHA-256 of what it made side by side. What may differ between two runs of one program is left
out by name: times, dates, commands and commits, and what `--without` names, such as a metric that was defined anew
between the two. Exit code 1: something differs; 2: a checkout could not run a part.

`claims` takes seconds, `simulate`, `sweep`, `audit`, `transfer` and `finetune` a minute or two each, `compiled` the
time of a C++ compiler, `verify` the quick tier of all claims; `--seeds` makes that one shorter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

VARYING = {"date", "seconds", "command", "commit", "step_time"}
"""Names of what two runs of one program may differ in, at any depth of a result, and columns left out on request."""

Digests = Iterator[tuple[str, str]]
PARTS: dict[str, Callable[[Path, int | None], Digests]] = {}
"""From a fresh folder and a number of seeds to (label, digest) pairs."""


def part(function: Callable[[Path, int | None], Digests]) -> Callable[[Path, int | None], Digests]:
    PARTS[function.__name__] = function
    return function


# -- what is compared, run inside a checkout -------------------------------------------------------------------------

SMALL = {"seeds": 3, "steps": 4, "group_size": 8, "epochs": 2}
SHORT_SUM = "ModularSum-v1(length=3,vocabulary=4,modulus=2,prompts=2)"
RARE = "RareArm-v1(arms=8,contexts=2)"
SETTINGS: dict[str, dict[str, Any]] = {
    "fresh": {"objective": "ppo", "env": SHORT_SUM},
    "several objectives": {"objective": ["ppo", "sapo", "erc(base=dapo)"], "env": RARE, "learning_rate": 8.0},
    "mini-batches": {"objective": "dapo", "env": SHORT_SUM, "minibatches": 2, "learning_rate": 4.0},
    "stale": {"objective": "bapo", "env": SHORT_SUM, "staleness": 2, "learning_rate": 4.0},
    "partial rollouts": {"objective": "grpo", "env": SHORT_SUM, "partial": 2},
    "noisy sampler": {"objective": "importance_correction(base=grpo)", "env": SHORT_SUM, "mismatch": 0.1},
    "stale sampler": {"objective": "grpo", "env": SHORT_SUM, "mismatch": "stale(iterations=2)"},
    "adam": {"objective": "gspo", "env": SHORT_SUM, "optimizer": "adam", "learning_rate": 0.1},
    "clipped gradient": {"objective": "reinforce", "env": RARE, "max_grad_norm": 0.05, "learning_rate": 16.0},
    "smooth standardisation": {"objective": "dcpo", "env": RARE},
    "leave one out": {"objective": "ppo", "env": RARE, "advantage": "leave_one_out"},
    "double precision": {"objective": "cispo", "env": SHORT_SUM, "dtype": "float64"},
    "thinned": {"objective": "ppo", "env": SHORT_SUM, "metrics_every": 3, "sampled_metrics": False},
    "variable length": {"objective": "dr_grpo", "env": "VariableLength-v1", "seeds": 2},
    "low rank": {"objective": "ppo", "env": SHORT_SUM, "model": "low_rank(rank=2)"},
    "transformer": {"objective": "ppo", "env": SHORT_SUM, "model": "transformer", "seeds": 2, "learning_rate": 0.1},
    "experts": {"objective": "sapo", "env": SHORT_SUM, "model": "moe", "seeds": 2, "mismatch": "router(scale=0.1)"},
}


@part
def claims(folder: Path, seeds: int | None) -> Digests:
    """Every claim's statement, protocol and recorded verdict."""
    from analysis.claims import claim_names, get_claim

    for name in claim_names():
        claim = get_claim(name)
        said = [claim.protocol_hash(None, 0), claim.protocol_hash(64, 2001), claim.recorded, claim.tier, claim.scope]
        yield name, of_json([*said, claim.title, claim.source, claim.paper, claim.statement, claim.unit, claim.notes])


@part
def simulate(folder: Path, seeds: int | None) -> Digests:
    """Tables of `simulate` over a spread of settings, and of every objective."""
    import torch

    from testbed.errors import BatchError
    from testbed.objectives import objective_names
    from testbed.simulation import simulate as run

    torch.set_num_threads(1)
    every = {f"objective {name}": {"objective": name, "env": RARE, "seed": 7} for name in objective_names()}
    for label, setting in {**SETTINGS, **every}.items():
        arguments = {**SMALL, **setting}
        if "dtype" in arguments:
            arguments["dtype"] = getattr(torch, arguments["dtype"])
        try:
            yield label, of_table(run(**arguments).table)
        except BatchError as refusal:
            # An objective that reads what a toy does not have, such as a reference policy.
            yield f"{label}, refused", of_json(str(refusal))


@part
def compiled(folder: Path, seeds: int | None) -> Digests:
    """A compiled run."""
    from testbed.simulation import simulate as run

    yield "compiled", of_table(run("ppo", SHORT_SUM, **SMALL, compile=True).table)


@part
def sweep(folder: Path, seeds: int | None) -> Digests:
    """Tables of `run_sweep`: axes of every kind, in one process, and in shards that are merged."""
    from testbed.simulation import Sweep, run_sweep
    from testbed.simulation.shards import merge

    loop = {"seeds": 3, "steps": 4, "epochs": 2, "group_size": 8}
    plans = {
        "hyper-parameters": {"objective": "dapo", "env": RARE, "vary": ["clip_low=0.05:0.4:3", "clip_high=0.1,0.5"]},
        "learning rate": {"objective": "erc(base=dapo)", "env": SHORT_SUM, "vary": ["learning_rate=1:64:3:log"]},
        "loop": {"objective": "grpo", "env": RARE, "vary": ["staleness=0,2", "group_size=4,8"]},
        "environment": {
            "objective": "ppo",
            "env": "RareArm-v1(contexts=2)",
            "vary": ["arms=4,8", "rare_probability=0.1,0.2"],
        },
        "objectives": {"objective": "ppo", "env": RARE, "vary": ['objective=dapo,"erc(base=dapo)"', "clip_high=0.2,1"]},
        "sample": {"objective": "sapo", "env": RARE, "vary": ["tau_pos=0.5:4:log", "tau_neg=1:2"], "samples": 5},
    }
    for label, plan in plans.items():
        planned = Sweep.of(**{**loop, **plan})
        yield label, of_table(run_sweep(planned, folder / label, jobs=1).table)
    planned = Sweep.of(**loop, **plans["loop"])
    folders = [folder / f"shard {number}" for number in (1, 2)]
    for number, where in enumerate(folders, start=1):
        run_sweep(planned, where, jobs=1, shard=f"{number}/2")
    yield "merged shards", of_table(merge(folders, folder / "merged").table)


@part
def verify(folder: Path, seeds: int | None) -> Digests:
    """results.json of the quick tier, claim by claim, and the facts of the run."""
    from analysis.verify import verify as run

    run(tier="quick", seeds=seeds, out=folder / "run")
    results = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    yield "run", of_json(results["run"])
    for row in results["claims"]:
        yield row["id"], of_json(row)


@part
def audit(folder: Path, seeds: int | None) -> Digests:
    """audit.json of an objective of our own, section by section."""
    from analysis.audit import audit as run

    run("dcpo", seeds=5, out=folder / "run")
    yield from sections(folder / "run" / "audit.json")


RUNS: dict[str, dict[str, Any]] = {
    "micro-batches": {"objective": "erc(base=dapo)"},
    "the whole batch": {"objective": "bapo", "overlong_cache": 4},
    "a memory of prompts": {"objective": "dcpo", "dynamic_sampling": 3},
    "routing replay": {"objective": "gspo", "model": "qwen3-moe-0.1m", "routing_replay": True},
    "an adapter": {"objective": "reference_kl(base=grpo)", "lora": {"r": 2}},
}


@part
def finetune(folder: Path, seeds: int | None) -> Digests:
    """Fine-tuning runs, and each of them continued after its second checkpoint."""
    for number, (label, changes) in enumerate(RUNS.items()):
        where = folder / str(number)
        where.mkdir()
        for name, digest in finetuned(where, changes):
            yield f"{label}: {name}", digest


def finetuned(folder: Path, changes: dict[str, Any]) -> Digests:
    """What a run writes, whole and continued."""
    import yaml

    from testbed.finetune import run_finetune

    settings = {
        "model": "qwen2-0.1m",
        "train": {"source": "arithmetic(level=1,count=16)"},
        "test": {"source": "arithmetic(level=1,count=4)", "split": "test"},
        "warm_start": {"target": 0.02, "ceiling": 0.9, "check_every": 10, "learning_rate": 0.003},
        "trainer": {
            "max_steps": 4,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "num_generations": 4,
            "num_iterations": 2,
            "max_completion_length": 8,
            "learning_rate": 0.01,
            "save_steps": 1,
            "save_total_limit": 9,
        },
        "evaluation": {"samples": 2},
        "device": "cpu",
        **changes,
    }
    plan, whole, resumed = folder / "plan.yaml", folder / "whole", folder / "resumed"
    plan.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run_finetune(plan, out=whole)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "model")
    for step in (3, 4):
        shutil.rmtree(resumed / "checkpoints" / f"checkpoint-{step}")
    before = json.loads((resumed / "evaluation.json").read_text(encoding="utf-8"))["before"]
    (resumed / "evaluation.json").write_text(json.dumps({"before": before}), encoding="utf-8")
    run_finetune(plan, out=resumed, resume=True)
    for run in (whole, resumed):
        for name in ("log.jsonl", "samples.jsonl"):
            lines = (run / name).read_text(encoding="utf-8").splitlines()
            yield f"{run.name}/{name}", of_json([json.loads(line) for line in lines])
        evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        evaluation.pop("facts")
        yield f"{run.name}/evaluation.json", of_json(evaluation)
        for path in sorted((run / "model").glob("*.safetensors")):
            yield f"{run.name}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()


@part
def transfer(folder: Path, seeds: int | None) -> Digests:
    """transfer.json of one comparison, with the smallest model, few updates and two seeds; and its page."""
    from dataclasses import replace

    from analysis.transfer import run_transfer
    from analysis.transfer.claims import CLIP_RATIO, SCALES
    from testbed.finetune import TaskSettings, WarmStartSettings

    task = TaskSettings(source="arithmetic(level=1,count=8)")
    quick = WarmStartSettings(target=0.05, ceiling=0.95, learning_rate=0.003, check_every=10)
    scale = replace(
        SCALES["cpu"],
        warm_starts=dict.fromkeys(("dense", "experts"), quick),
        train=task,
        test=task,
        responses=16,
        length=8,
        samples=2,
    )
    shorter = replace(CLIP_RATIO.language_model, setting={"updates": 8})
    done = run_transfer(
        [replace(CLIP_RATIO, language_model=shorter)], scale, folder / "run", seeds=2, seed=2001, jobs=1
    )
    yield from sections(folder / "run" / "transfer.json")
    lines = done.page.read_text(encoding="utf-8").splitlines()
    # The fifth line from the top holds date and seconds.
    yield "page", of_json([line for line in lines if not line.startswith(str(done.facts["date"]))])


# -- digests ---------------------------------------------------------------------------------------------------------


def of_json(value: Any) -> str:
    """Digest of a result without what varies from run to run; floats are compared by their shortest exact form."""
    return hashlib.sha256(json.dumps(constant(value), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def constant(value: Any) -> Any:
    """The result without every entry whose name is in `VARYING`."""
    if isinstance(value, Mapping):
        return {key: constant(item) for key, item in value.items() if key not in VARYING}
    return [constant(item) for item in value] if isinstance(value, list | tuple) else value


def of_table(table: Any) -> str:
    """Digest of names, types and the bytes of every column, in order, without those in `VARYING`."""
    digest = hashlib.sha256()
    for name in table.columns:
        if name in VARYING:
            continue
        column = table[name].to_numpy()
        digest.update(f"{name} {column.dtype} {len(column)}\n".encode())
        digest.update(repr(column.tolist()).encode() if column.dtype == object else column.tobytes())
    return digest.hexdigest()


def sections(path: Path) -> Digests:
    """A JSON file, one digest per entry of its first level."""
    for name, section in json.loads(path.read_text(encoding="utf-8")).items():
        yield name, of_json(section)


# -- two checkouts side by side --------------------------------------------------------------------------------------


def run_inside(checkout: Path, name: str, seeds: int | None, without: list[str]) -> dict[str, str]:
    """The digests of a part, made by a checkout's own code.

    Raises:
        RuntimeError: it could not; the message holds what it said.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryDirectory(prefix="compare-checkouts-") as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--inside", name, folder]
        command += [] if seeds is None else ["--seeds", str(seeds)]
        command += [word for column in without for word in ("--without", column)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{checkout} could not run {name}:\n{done.stderr[-4000:]}")
        digests: dict[str, str] = json.loads((Path(folder) / "digests.json").read_text(encoding="utf-8"))
        return digests


def inside(name: str, folder: Path, seeds: int | None) -> None:
    """Run a part with whatever code PYTHONPATH leads to, and leave its digests in the folder."""
    digests = dict(PARTS[name](folder, seeds))
    (folder / "digests.json").write_text(json.dumps(digests), encoding="utf-8")


def main() -> int:
    """Compare; the exit code says whether everything was equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="two folders: before and after")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="a part; several times; default: all")
    parser.add_argument("--seeds", type=int, help="seeds of every statistical claim of `verify`; default: its own")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="a column or key to leave out")
    parser.add_argument("--inside", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    VARYING.update(given.without)
    if given.inside:
        inside(given.inside[0], Path(given.inside[1]), given.seeds)
        return 0
    if len(given.checkouts) != 2 or not all((item / "testbed").is_dir() for item in given.checkouts):
        parser.error("expected two folders that hold a checkout each")
    before, after = (item.resolve() for item in given.checkouts)
    different = 0
    for name in given.only or PARTS:
        try:
            first, second = (run_inside(checkout, name, given.seeds, given.without) for checkout in (before, after))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
        print(f"{name}: {' '.join((PARTS[name].__doc__ or '').split())}")
        for label in dict.fromkeys([*first, *second]):
            one, two = first.get(label, "missing"), second.get(label, "missing")
            different += one != two
            print(f"  {'equal    ' if one == two else 'DIFFERENT'} {one[:16]:16} {two[:16]:16} {label}")
    print(f"{different} differences" if different else "everything is equal")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
