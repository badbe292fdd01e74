"""Run both sides of every transfer claim and put their verdicts beside one another."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from analysis.claims import Verdict, run_claim
from analysis.claims._judging import judge_arms
from analysis.trajectories import curve
from analysis.transfer._claim import Arm, LanguageModelClaim, Scale, TransferClaim
from analysis.transfer._page import summary_rows, write_page
from analysis.transfer._training import start_folder, train, train_start, trajectories
from testbed.diagnostics import GLOSSARY
from testbed.errors import ConfigError, RunExistsError
from testbed.progress import LateProgress
from testbed.simulation.run import environment_facts

__all__ = ["Outcome", "Side", "Transfer", "run_transfer"]

RESULT_FILE, PAGE_FILE, SCALE_FILE = "transfer.json", "transfer.md", "scale.json"
RECORDED_ON = "cpu"
"""The device whose verdicts are on record."""
Agreement = Literal["agree", "disagree", "undecided"]


@dataclass(frozen=True)
class Side:
    """What one of the two experiments found."""

    id: str
    """The claim's id."""
    verdict: str
    """As in `analysis.claims.Verdict`."""
    reason: str
    recorded: str | None
    """The verdict on record; `None` where there is none, as for another device than the record's."""
    statement: str
    estimand: str
    estimate: float | None
    interval: tuple[float, float] | None
    level: float
    """Coverage of the interval."""
    threshold: float
    direction: str
    unit: str
    seeds: int
    seeds_needed: int | None
    scope: str
    falsifier: Mapping[str, Any]
    per_seed: Sequence[Any]
    means: Mapping[str, Mapping[str, float]]
    """What the arms did: metric, arm, mean over rollouts and seeds."""

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one on record, or there is none."""
        return self.recorded is None or self.verdict == self.recorded


@dataclass(frozen=True)
class Outcome:
    """A claim on both sides."""

    name: str
    title: str
    difference: str
    toy: Side
    language_model: Side

    @property
    def agreement(self) -> Agreement:
        """Whether both sides reach the same conclusion; undecided where one of them reaches none."""
        verdicts = {self.toy.verdict, self.language_model.verdict}
        if not verdicts <= {"reproduced", "refuted"}:
            return "undecided"
        return "agree" if len(verdicts) == 1 else "disagree"


@dataclass(frozen=True)
class Transfer:
    """A finished comparison."""

    folder: Path
    """Where transfer.json, transfer.md and the runs lie."""
    outcomes: tuple[Outcome, ...]
    facts: Mapping[str, Any]
    """Date, device, versions, models, seeds and times."""

    @property
    def page(self) -> Path:
        """The table and every claim in words."""
        return self.folder / PAGE_FILE

    def rows(self) -> list[tuple[str, ...]]:
        """One row per claim: name, both verdicts with estimate, interval and seeds, and whether they agree."""
        return summary_rows(self)

    @property
    def changed(self) -> list[Side]:
        """The sides whose verdict differs from the one on record."""
        sides = [side for outcome in self.outcomes for side in (outcome.toy, outcome.language_model)]
        return [side for side in sides if not side.as_recorded]


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
            _toy_side(toys[place]),
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
    content = {
        "run": facts,
        "claims": [asdict(outcome) | {"agreement": outcome.agreement} for outcome in outcomes],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / RESULT_FILE).write_text(text, encoding="utf-8")
    write_page(done, done.page)
    return done


def _all_arms(claim: LanguageModelClaim) -> dict[str, Arm]:
    """The claim's arms and those of its falsifier, the latter under names of their own."""
    own = {name: claim.arm(changes) for name, changes in claim.arms.items()}
    return own | {f"sabotaged {name}": claim.arm(changes) for name, changes in claim.falsifier.arms.items()}


def _judge_toy(claim: TransferClaim, seed: int) -> Verdict:
    import torch

    torch.set_num_threads(1)
    return run_claim(claim.toy, seed=seed)


def _toy_side(verdict: Verdict) -> Side:
    row = verdict.to_json()
    names = [name for name in Side.__dataclass_fields__ if name in row]
    return Side(**{name: row[name] for name in names}, means=_means(verdict.curves))


def _means(curves: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of every curve that is a metric over the rollouts."""
    return {
        str(drawn["title"]): {
            str(series["label"]): sum(series["mean"]) / len(series["mean"]) for series in drawn["series"]
        }
        for drawn in curves
        if drawn["title"] in GLOSSARY
    }


def _judge_language_model(claim: LanguageModelClaim, folder: Path, scale: Scale, seeds: range) -> Side:
    arms = {name: trajectories(folder, scale, arm, seeds) for name, arm in _all_arms(claim).items()}
    own = {name: arms[name] for name in claim.arms}
    sabotaged = own | {name: arms[f"sabotaged {name}"] for name in claim.falsifier.arms}
    judged = judge_arms(claim, own, sabotaged)
    return Side(
        id=claim.id,
        verdict=judged.verdict,
        reason=judged.reason,
        recorded=claim.recorded if scale.device == RECORDED_ON else None,
        statement=claim.statement,
        estimand=claim.estimand.description,
        estimate=None if math.isnan(judged.own.estimate) else judged.own.estimate,
        interval=judged.interval,
        level=claim.level,
        threshold=claim.threshold,
        direction=claim.direction,
        unit=claim.unit,
        seeds=len(seeds),
        seeds_needed=judged.own.seeds_needed,
        scope=claim.scope,
        falsifier=judged.falsifier(claim),
        per_seed=judged.per_seed,
        means=_means(curve(metric, own) for metric in claim.curves),
    )


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
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise RunExistsError(f"{folder} already holds something; nothing was written. Choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _start_success(folder: Path) -> float:
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return float(evaluation["before"]["average"]["value"])


def _device(scale: Scale) -> str:
    import torch

    return torch.cuda.get_device_name() if scale.device == "cuda" else "cpu"


def _silent(line: str) -> None:
    """Where nobody wants to be told."""
