"""Run claims, compare their verdicts with those on record, and keep everything in one folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.claims import MASTER_SEED, ClaimResult, claim_names, get_claim, run_claim
from analysis.finished import PLAN, FinishedResults
from analysis.judging.arms import ArmCache
from analysis.report import write_report
from analysis.statistics import benjamini_hochberg, holm
from testbed.errors import ConfigError, UnknownNameError
from testbed.output import free_folder, new_folder
from testbed.progress import LateProgress
from testbed.simulation.run import environment_facts
from testbed.simulation.storage import hold, write_atomically

__all__ = ["TIERS", "Verification", "adjusted_p_values", "select", "verify", "write_results"]

_ARMS = ".arms"
"""Simulated arms that several claims share, in the folder of the verification until it is done."""
TIERS = ("quick", "full", "networks")
"""Each holds those before it."""


@dataclass(frozen=True)
class Verification:
    """A finished verification.

    Attributes:
        folder: where `results.json` and `report.html` lie.
        results: one per claim, in the order asked for.
    """

    folder: Path
    results: tuple[ClaimResult, ...]

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def changed(self) -> tuple[ClaimResult, ...]:
        """The results whose verdict differs from the one on record."""
        return tuple(result for result in self.results if not result.as_recorded)


def select(names: Iterable[str], tier: str) -> list[str]:
    """The ids of the claims to run.

    Args:
        names: ids, or papers' short names for all claims of a paper; none: every claim of the tier.
        tier: `quick`; `full` for those and all others whose policies are tables or as cheap; `networks` for all.

    Raises:
        UnknownNameError: a name is neither a claim nor a paper.
        ConfigError: no such tier.
    """
    if tier not in TIERS:
        raise ConfigError(f"tier is {tier!r}; expected one of {', '.join(TIERS)}")
    known = claim_names()
    papers = {item.split("/")[0] for item in known}
    chosen: list[str] = []
    for name in names:
        if name not in papers and name not in known:
            raise UnknownNameError("claim or paper", name, papers if "/" not in name else known)
        chosen += [item for item in known if name in (item, item.split("/")[0])]
    if chosen:
        return list(dict.fromkeys(chosen))
    return [name for name in known if TIERS.index(get_claim(name).tier) <= TIERS.index(tier)]


def verify(
    names: Sequence[str] = (),
    *,
    tier: str = "quick",
    seeds: int | None = None,
    seed: int = MASTER_SEED,
    out: str | Path | None = None,
    jobs: int = -1,
    resume: bool = False,
    command: str = "",
) -> Verification:
    """Run claims in parallel processes and write `results.json` and `report.html`.

    Args:
        names: see `select`.
        tier: see `select`.
        seeds: seeds of every statistical claim; `None`: each claim's own number.
        seed: master seed.
        out: folder of the run; `None`: a new one below `runs/`.
        jobs: processes, each with one thread; -1: one per core.
        resume: whether to continue what an interrupted call began in `out`; finished claims are kept as they are.
        command: how this was started, for the record.

    Raises:
        RunExistsError: `out` already holds something and `resume` was not asked for; nothing is run.
        ConfigError: `resume` without a folder, or into one that was begun with another configuration.
        StorageError: a result cannot be written, or another process works in the same folder.
    """
    if resume and out is None:
        raise ConfigError("resume needs the folder of the interrupted verification; pass out")
    chosen = select(names, tier)
    started, clock = datetime.now(UTC), time.perf_counter()
    folder = new_folder("verify") if out is None else Path(out)
    if not (resume and (folder / PLAN).is_file()):
        free_folder(folder).mkdir(parents=True, exist_ok=True)
    plan = {
        "claims": {name: get_claim(name).protocol_hash(seeds, seed) for name in chosen},
        "seeds": seeds,
        "seed": seed,
        "versions": environment_facts(),
    }
    with hold(folder / ".locks", "verification", group="verification"):
        kept = FinishedResults(folder, plan)
        done = kept.load()
        for result in _run_all([name for name in chosen if name not in done], seeds, seed, jobs, folder / _ARMS):
            done[result.claim.id] = result
            kept.add(result)
    results = [done[name] for name in chosen]
    facts = {
        "versions": environment_facts(),
        "commit": _commit(),
        "seed": seed,
        "seeds": seeds,
        "tier": tier,
        "command": command,
        "date": started.isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - clock,
    }
    adjusted = adjusted_p_values(results)
    rows = [result.to_json() | {"adjusted": adjusted.get(result.claim.id)} for result in results]
    write_results(folder, facts, rows)
    write_report(folder)
    return Verification(folder, tuple(results))


def adjusted_p_values(results: Sequence[ClaimResult]) -> dict[str, dict[str, float]]:
    """p-values corrected for the number of claims, by id: `holm` inside a paper, `benjamini_hochberg` over the run.

    Exact claims have no p-value and do not count.
    """
    p_values = {result.claim.id: result.p_value for result in results if result.p_value is not None}
    if not p_values:
        return {}
    papers = {result.claim.id: result.claim.paper for result in results if result.claim.id in p_values}
    ledger = dict(zip(p_values, benjamini_hochberg(list(p_values.values())), strict=True))
    adjusted: dict[str, dict[str, float]] = {}
    for paper in dict.fromkeys(papers.values()):
        family = [name for name in p_values if papers[name] == paper]
        for name, value in zip(family, holm([p_values[item] for item in family]), strict=True):
            adjusted[name] = {"holm": float(value), "benjamini_hochberg": float(ledger[name])}
    return adjusted


def _run_all(chosen: Sequence[str], seeds: int | None, seed: int, jobs: int, arms: Path) -> Iterator[ClaimResult]:
    """Results as they get ready, in any order; `arms` is there meanwhile."""
    from joblib import Parallel, delayed

    # The longest first, so that no process is left with a long one at the end.
    order = sorted(chosen, key=lambda name: -_expected_work(name))
    workers = max(1, min(len(order), jobs)) if jobs > 0 else jobs
    # An earlier call that was killed may have left one, perhaps of another version.
    shutil.rmtree(arms, ignore_errors=True)
    arms.mkdir()
    try:
        with LateProgress("judging claims", len(order)) as progress:
            parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
            for result in parallel(delayed(_run_one)(name, seeds, seed, ArmCache(arms)) for name in order):
                yield result
                progress.advance()
    finally:
        shutil.rmtree(arms, ignore_errors=True)


def _run_one(name: str, seeds: int | None, seed: int, cache: ArmCache) -> ClaimResult:
    import torch

    torch.set_num_threads(1)
    return run_claim(name, seeds=seeds, seed=seed, cache=cache)


def _expected_work(name: str) -> float:
    claim = get_claim(name)
    setting = getattr(claim, "setting", {})
    return float(setting.get("steps", 0)) * (len(getattr(claim, "arms", ())) + 1) * getattr(claim, "seeds", 0)


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def write_results(folder: Path, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json`: facts about the run, and a row per claim."""
    content = {"run": facts, "claims": rows}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "results.json", text.encode())
