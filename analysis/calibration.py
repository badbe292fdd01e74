"""How often the suite is wrong: every statistical claim with nothing to find, and with a known effect planted.

In the null runs all arms of a claim are one arm against itself, each side with seeds of its own, so that the true
difference is zero and the two sides still differ by chance. A verdict of "reproduced" is then false ("refuted", for a
claim of equivalence). For the power, the null estimands are shifted so that their mean is the effect the claim says it
is made to see. Real claims are paired, which removes noise the null runs keep: both figures err on the strict side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from analysis.claims import StatisticalClaim, claim_names, get_claim
from analysis.claims._judging import judge_values, run_arms
from analysis.trajectories import Trajectories
from testbed.errors import ConfigError
from testbed.progress import LateProgress
from testbed.simulation.run import claim_folder, environment_facts, free_folder

__all__ = ["Calibration", "ClaimCalibration", "calibrate", "calibrated_claims"]

MASTER_SEED = 20_000
"""First master seed of the null runs; no verdict and no exploration uses it."""


@dataclass(frozen=True)
class ClaimCalibration:
    """What a claim did when there was nothing to find, and when there was.

    Attributes:
        claim: its id.
        repeats: repetitions, each with fresh seeds.
        seeds: seeds per repetition.
        false_verdicts: null repetitions that came out as the claim says.
        planted: the effect that was planted.
        found: repetitions with the planted effect that were reproduced.
    """

    claim: str
    repeats: int
    seeds: int
    false_verdicts: int
    planted: float
    found: int

    @property
    def power(self) -> float:
        """Share of repetitions in which the planted effect was reproduced."""
        return self.found / self.repeats


@dataclass(frozen=True)
class Calibration:
    """The calibration of several claims."""

    claims: tuple[ClaimCalibration, ...]

    @property
    def verdicts(self) -> int:
        """Null verdicts in all."""
        return sum(item.repeats for item in self.claims)

    @property
    def false_verdicts(self) -> int:
        """False ones among them."""
        return sum(item.false_verdicts for item in self.claims)

    @property
    def rate_interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the rate of false verdicts."""
        bounds = stats.binomtest(self.false_verdicts, self.verdicts).proportion_ci(0.95, method="exact")
        return float(bounds.low), float(bounds.high)

    def save(self, out: str | Path, *, command: str = "") -> Path:
        """Write `calibration.json` into the folder `out`.

        Raises:
            RunExistsError: `out` already holds something.
        """
        folder = claim_folder(out)
        content: dict[str, Any] = {
            "run": {"versions": environment_facts(), "command": command, "master_seed": MASTER_SEED},
            "null_verdicts": self.verdicts,
            "false_verdicts": self.false_verdicts,
            "rate_interval": list(self.rate_interval),
            "claims": [asdict(item) | {"power": item.power} for item in self.claims],
        }
        path = folder / "calibration.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path


def calibrated_claims() -> list[str]:
    """Ids of the claims the calibration can judge: statistical ones that compare at least two tabular arms."""
    return [name for name in claim_names() if _reason_to_skip(name) is None]


def calibrate(
    names: Sequence[str] = (), *, repeats: int = 25, jobs: int = -1, out: str | Path | None = None, command: str = ""
) -> Calibration:
    """Run the null and the planted repetitions of claims, in parallel processes.

    Args:
        names: ids; none: every claim of `calibrated_claims`.
        repeats: repetitions per claim, at least 1.
        jobs: processes; -1: one per core.
        out: folder for `calibration.json`; `None`: nothing is written.
        command: how this was started, for the record.

    Raises:
        UnknownNameError: no such claim.
        ConfigError: a named claim cannot be calibrated, or `repeats` is not positive.
        RunExistsError: `out` already holds something; nothing is run.
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ConfigError(f"repeats is {repeats!r}; expected a whole number of at least 1")
    for name in names:
        reason = _reason_to_skip(name)
        if reason is not None:
            raise ConfigError(f"claim {name} cannot be calibrated: {reason}")
    if out is not None:
        free_folder(out)
    from joblib import Parallel, delayed

    chosen = list(names) or calibrated_claims()
    finished: dict[str, ClaimCalibration] = {}
    with LateProgress("calibrating", len(chosen)) as progress:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        for item in parallel(delayed(_calibrate_one)(name, repeats) for name in chosen):
            finished[item.claim] = item
            progress.advance()
    result = Calibration(tuple(finished[name] for name in chosen))
    if out is not None:
        result.save(out, command=command)
    return result


def _calibrate_one(name: str, repeats: int) -> ClaimCalibration:
    import torch

    torch.set_num_threads(1)
    claim = get_claim(name)
    assert isinstance(claim, StatisticalClaim)
    sides = _null_sides(claim, repeats * claim.seeds)
    estimands = []
    for repeat in range(repeats):
        first = repeat * claim.seeds
        blocks = {arm: side.block(first, first + claim.seeds) for arm, side in sides.items()}
        estimands.append(claim.estimand.compute(blocks))
    false = "refuted" if claim.direction == "equivalent" else "reproduced"
    planted = _planted(claim, np.stack(estimands))
    return ClaimCalibration(
        claim=name,
        repeats=repeats,
        seeds=claim.seeds,
        false_verdicts=sum(judge_values(claim, values).verdict == false for values in estimands),
        planted=claim.planted_effect,
        found=sum(judge_values(claim, values).verdict == "reproduced" for values in planted),
    )


def _null_sides(claim: StatisticalClaim, seeds: int) -> dict[str, Trajectories]:
    """Every arm replaced by the last one, each with a master seed of its own."""
    *_, reference = claim.arms.values()
    return {
        arm: run_arms(claim.setting, {arm: reference}, seeds, MASTER_SEED + index)[arm]
        for index, arm in enumerate(claim.arms)
    }


def _planted(claim: StatisticalClaim, null: np.ndarray) -> np.ndarray:
    """The null estimands `(repeats, seeds[, conditions])`, moved so that their mean is the planted effect."""
    effect = 0.0 if claim.direction == "equivalent" else claim.planted_effect
    if null.ndim == 3:
        # "In this order": every adjacent step is the planted effect.
        return null - np.nanmean(null, (0, 1)) + effect * np.arange(null.shape[2])
    return null + (effect - np.nanmean(null))


def _reason_to_skip(name: str) -> str | None:
    claim = get_claim(name)
    if not isinstance(claim, StatisticalClaim):
        return "it is exact and has no sampling error"
    if len(claim.estimand.arms) < 2:
        return "it compares no two arms, so there is no objective to put against itself"
    if claim.statistic == "proportion":
        return "a yes-or-no outcome cannot be shifted by an effect"
    if any(dict(claim.setting, **arm).get("model", "tabular") != "tabular" for arm in claim.arms.values()):
        return "its policies are not tabular, and repeating it would take hours"
    return None
