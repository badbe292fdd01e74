"""Run both sides of every transfer claim and put their verdicts beside one another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.judging.result import ClaimResult
from analysis.judging.run import judge_arms, run_claim
from analysis.transfer.comparison import Arm, LanguageModelClaim, Scale, TransferClaim
from analysis.transfer.outcome import RESULT_FILE, Outcome, Transfer
from analysis.transfer.page import write_page
from analysis.transfer.training import start_folder, train, train_start, trajectories
from testbed.errors import ConfigError
from testbed.output import free_folder
from testbed.progress import LateProgress
from testbed.simulation.run import environment_facts

__all__ = ["run_transfer"]

SCALE_FILE = "scale.json"
RECORDED_ON = "cpu"
"""The device whose verdicts are on record."""


def run_transfer(
    claims: Sequence[TransferClaim],
    scale: Scale,
    folder: str | Path,
    *,
    seeds: int | None = None,
    seed: int = 0,
    jobs: int = -1,
    command: str = "",
    report: Callable[[str], None] | None = None,
) -> Transfer:
    """Judge every claim on the toy and on a language model.

    A warm start is made once per seed and model, a run once per seed and distinct arm; both are kept in `folder`, so
    that a call that was interrupted, or one that asks for more seeds, repeats nothing. Every process works on one core.

    Args:
        claims: what is compared.
        scale: of the language-model side.
        folder: a new folder, or one of an earlier call with the same scale.
        seeds: seeds of the language-model side; `None`: each claim's own number. The toy side has its own.
        seed: the first seed of the language-model side, and the toys' master seed.
        jobs: processes; -1: one per core.
        command: how this was started, for the record.
        report: called with a line of text when a stage is done.

    Raises:
        ConfigError: no such claims, or the folder holds runs of another scale or other settings.
        RunExistsError: the folder holds something else.
    """
    if not claims or (seeds is not None and seeds < 1):
        raise ConfigError(f"got {len(claims)} claims and seeds={seeds}; expected at least one of each")
    say = report if report is not None else _silent
    folder = Path(folder)
    _open(folder, scale)
    began, started = datetime.now(UTC), time.perf_counter()
    chosen = {
        claim.name: range(seed, seed + (claim.language_model.seeds if seeds is None else seeds)) for claim in claims
    }

    arms = {
        (arm, number)
        for claim in claims
        for arm in _all_arms(claim.language_model).values()
        for number in chosen[claim.name]
    }
    starts = sorted({(arm.model, number) for arm, number in arms})
    _in_parallel("warm starts", [(train_start, (folder, scale, *start)) for start in starts], jobs)
    say(f"{len(starts)} warm starts: {time.perf_counter() - started:.0f} s")
    # Toys first, then the longest runs, so that no process is left with a long one at the end.
    order = sorted(arms, key=lambda item: (-item[0].updates, item[0].objective, item[1]))
    runs = [(train, (folder, scale, arm, number)) for arm, number in order]
    toys = _in_parallel("toys and training", [*((_judge_toy, (claim, seed)) for claim in claims), *runs], jobs)
    say(f"{len(claims)} toy claims and {len(runs)} runs: {time.perf_counter() - started:.0f} s")

    outcomes = tuple(
        Outcome(
            claim.name,
            claim.language_model.title,
            claim.difference,
            toys[place],
            _judge_language_model(claim.language_model, folder, scale, chosen[claim.name]),
        )
        for place, claim in enumerate(claims)
    )
    facts = {
        "date": began.isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - started,
        "command": command,
        "device": _device(scale),
        "versions": environment_facts("transformers", "trl", "accelerate"),
        "scale": asdict(scale),
        "runs": len(runs),
        "starts": {
            f"{family} {number}": _start_success(start_folder(folder, scale, family, number))
            for family, number in starts
        },
    }
    done = Transfer(folder, outcomes, facts)
    content = {"run": facts, "claims": [outcome.to_json() for outcome in outcomes]}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / RESULT_FILE).write_text(text, encoding="utf-8")
    write_page(done, done.page)
    return done


def _all_arms(claim: LanguageModelClaim) -> dict[str, Arm]:
    """The claim's arms and those of its falsifier, the latter under names of their own."""
    own = {name: claim.arm(changes) for name, changes in claim.arms.items()}
    return own | {f"sabotaged {name}": claim.arm(changes) for name, changes in claim.falsifier.arms.items()}


def _judge_toy(claim: TransferClaim, seed: int) -> ClaimResult:
    import torch

    torch.set_num_threads(1)
    return run_claim(claim.toy, seed=seed)


def _judge_language_model(claim: LanguageModelClaim, folder: Path, scale: Scale, seeds: range) -> ClaimResult:
    arms = {name: trajectories(folder, scale, arm, seeds) for name, arm in _all_arms(claim).items()}
    own = {name: arms[name] for name in claim.arms}
    sabotaged = own | {name: arms[f"sabotaged {name}"] for name in claim.falsifier.arms}
    judged = judge_arms(claim, own, sabotaged, seeds.start)
    on_record = claim.recorded if scale.device == RECORDED_ON else None
    return replace(judged, claim=replace(judged.claim, recorded=on_record))


def _in_parallel(label: str, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], jobs: int) -> list[Any]:
    from joblib import Parallel, delayed

    workers = min(len(calls), jobs) if jobs > 0 else jobs
    results: list[Any] = []
    with LateProgress(label, len(calls)) as progress:
        parallel = Parallel(n_jobs=workers, return_as="generator", batch_size=1, pre_dispatch="all")
        for result in parallel(delayed(function)(*arguments) for function, arguments in calls):
            results.append(result)
            progress.advance()
    return results


def _open(folder: Path, scale: Scale) -> None:
    path = folder / SCALE_FILE
    described = json.loads(json.dumps(asdict(scale)))
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != described:
            raise ConfigError(f"{folder} holds runs of another scale; choose another --out")
        return
    free_folder(folder).mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _start_success(folder: Path) -> float:
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return float(evaluation["before"]["average"]["value"])


def _device(scale: Scale) -> str:
    import torch

    return torch.cuda.get_device_name() if scale.device == "cuda" else "cpu"


def _silent(line: str) -> None:
    """Where nobody wants to be told."""
