"""How often the suite is wrong: every statistical claim with nothing to find, and with a known effect planted.

*Null runs.* All arms of a claim that compares arms are one arm against itself, each side with seeds of its own, so
that the sides differ by chance alone. A claim about a single arm has no second side, and one that measures different
things of its arms no null in it; they get their falsifier, in which the mechanism under test is off. What is true in
a null run is known (from the arm on one and the same seeds, or from all repetitions of the falsifier together), and a
verdict that says otherwise is false: "reproduced" where the statement does not hold, "refuted" where it does (an
objective is not worse than itself), either of the two where the truth lies on the threshold itself.

*At the threshold.* The same numbers, moved so that their mean is the threshold: the hardest truth there is, where every
verdict is false.

*Power.* The numbers moved so that their mean is the effect the claim says it is made to see. The sides of a null run
share no random numbers, those of a claim do, so this is a lower bound; where it is below nine in ten the claim's own
arms, paired as they are, are repeated and moved instead. For a claim about one arm it is that arm, here and at the
threshold.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from analysis.claims import StatisticalClaim, claim_names, get_claim
from analysis.judging.arms import ArmCache, lean, run_arms
from analysis.judging.tuning import tune
from analysis.judging.values import judge_values
from analysis.statistics import Estimator, Interval, decide, interquartile_mean, interval, smallest_step
from analysis.trajectories import Trajectories
from testbed.errors import ConfigError
from testbed.output import free_folder, fresh_folder
from testbed.progress import LateProgress
from testbed.simulation.run import environment_facts
from testbed.simulation.storage import write_atomically

__all__ = [
    "MASTER_SEED",
    "RECORD",
    "Calibration",
    "ClaimCalibration",
    "calibrate",
    "calibrated_claims",
    "calibration_page",
    "reason_to_skip",
]

RECORD = Path(__file__).resolve().parent.parent / "docs" / "calibration.json"
"""The calibration.json of the last calibration of the whole suite."""

MASTER_SEED = 20_000
"""First master seed of the null runs; no verdict and no exploration uses it."""
OWN_SEED = 20_500
"""Master seed of the repetitions of claims' own arms."""
POWER = 0.9
"""The power a claim should have at its planted effect."""
SEEDS_PER_REPETITION = 32
"""Seeds of a repetition, or the claim's own number where that is smaller: with more seeds a false verdict is only
rarer."""
DRAWS = 100
"""Samples behind the power and the verdicts at the threshold, each of the claim's full number of seeds, drawn with
replacement from the seeds of all repetitions. Among twenty, one experiment in thirteen would show a power of less than
0.9 where it is 0.95, and one in five of 0.9 and more where it is 0.8."""
_SLOW_MODELS = ("transformer", "moe")
_TRUTH_LEVEL = 0.999

Truth = Literal["holds", "does not hold", "on the threshold"]
_TRUTHS: dict[str, Truth] = {"reproduced": "holds", "refuted": "does not hold", "inconclusive": "on the threshold"}
_FALSE = {"holds": {"refuted"}, "does not hold": {"reproduced"}, "on the threshold": {"reproduced", "refuted"}}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClaimCalibration:
    """What a claim did when there was nothing to find, and when there was.

    Attributes:
        claim: its id.
        repeats: repetitions, each with fresh seeds.
        seeds: seeds per repetition.
        null: what the null runs are: `itself`, an arm against itself, or `falsifier`.
        truth: what is true of the claim's statement there.
        false_verdicts: null repetitions with a verdict that is not true.
        draws: samples of the claim's own number of seeds, behind the next ones.
        at_threshold: draws with a verdict when the truth is the threshold; `None` for a yes-or-no outcome, which cannot
            be moved.
        planted: the effect that was planted.
        found: draws with the planted effect that were reproduced; `None` likewise.
        paired: whether `found` is of the claim's own paired arms instead of a null run's.
    """

    claim: str
    repeats: int
    seeds: int
    null: Literal["itself", "falsifier"]
    truth: Truth
    false_verdicts: int
    draws: int
    at_threshold: int | None
    planted: float
    found: int | None
    paired: bool

    @property
    def power(self) -> float | None:
        """Share of draws in which the planted effect was reproduced."""
        return None if self.found is None else self.found / self.draws


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
        bounds = scipy.stats.binomtest(self.false_verdicts, self.verdicts).proportion_ci(0.95, method="exact")
        return float(bounds.low), float(bounds.high)

    @property
    def at_threshold(self) -> tuple[int, int]:
        """Verdicts where the truth is the threshold, and of how many draws."""
        moved = [item for item in self.claims if item.at_threshold is not None]
        return sum(item.at_threshold or 0 for item in moved), sum(item.draws for item in moved)

    def save(self, out: str | Path, *, command: str = "") -> Path:
        """Write `calibration.json` into the folder `out`.

        Raises:
            RunExistsError: `out` already holds something.
        """
        with fresh_folder(out) as folder:
            return self._write(folder, command)

    def _write(self, folder: Path, command: str) -> Path:
        threshold_false, threshold_all = self.at_threshold
        content: dict[str, Any] = {
            "run": {"versions": environment_facts(), "command": command, "master_seed": MASTER_SEED},
            "null_verdicts": self.verdicts,
            "false_verdicts": self.false_verdicts,
            "rate_interval": list(self.rate_interval),
            "at_threshold_verdicts": threshold_false,
            "at_threshold_draws": threshold_all,
            "claims": [asdict(item) | {"power": item.power} for item in self.claims],
        }
        path = folder / "calibration.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path


def calibrated_claims() -> list[str]:
    """Ids of the claims the calibration can judge: statistical ones whose policies repeat in seconds."""
    return [name for name in claim_names() if reason_to_skip(name) is None]


def reason_to_skip(name: str) -> str | None:
    """Why the calibration leaves a claim out; `None` where it does not.

    Raises:
        UnknownNameError: no such claim.
    """
    claim = get_claim(name)
    if not isinstance(claim, StatisticalClaim):
        return "it is exact and has no sampling error"
    models = {str({**claim.setting, **arm}.get("model", "tabular")).partition("(")[0] for arm in claim.arms.values()}
    if models & set(_SLOW_MODELS):
        return "its policies are networks, and repeating it would take hours"
    return None


def calibrate(
    names: Sequence[str] = (),
    *,
    repeats: int = 20,
    jobs: int = -1,
    out: str | Path | None = None,
    resume: bool = False,
    command: str = "",
) -> Calibration:
    """Run the null and the planted repetitions of claims, in parallel processes.

    Args:
        names: ids; none: every claim of `calibrated_claims`.
        repeats: repetitions per claim, at least 1.
        jobs: processes; -1: one per core.
        out: folder for `calibration.json`, and one file per finished claim; `None`: nothing is written.
        resume: keep the claims that an interrupted call with the same `repeats` finished in `out`.
        command: how this was started, for the record.

    Raises:
        UnknownNameError: no such claim.
        ConfigError: a named claim cannot be calibrated, or `repeats` is not positive.
        RunExistsError: `out` already holds something and this is no `resume`; nothing is run.
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ConfigError(f"repeats is {repeats!r}; expected a whole number of at least 1")
    for name in names:
        reason = reason_to_skip(name)
        if reason is not None:
            raise ConfigError(f"claim {name} cannot be calibrated: {reason}")
    folder = None
    if out is not None:
        folder = Path(out) if resume else free_folder(out)
        # Of two processes one makes it.
        (folder / "claims").mkdir(parents=True, exist_ok=resume)
    from joblib import Parallel, delayed

    chosen = list(dict.fromkeys(names)) or calibrated_claims()
    finished = _already_finished(folder, chosen, repeats) if resume else {}
    # Claims with the same null run share it: one simulation of all the seeds that any of them needs.
    groups: dict[str, list[str]] = defaultdict(list)
    for name in chosen:
        if name not in finished:
            groups[_null_key(name)].append(name)
    with (
        tempfile.TemporaryDirectory(prefix="testbed-calibrate-") as temporary,
        LateProgress("calibrating", len(groups)) as progress,
    ):
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        cache = ArmCache(Path(temporary))
        for items in parallel(delayed(_calibrate_group)(group, repeats, cache) for group in groups.values()):
            for item in items:
                finished[item.claim] = item
                if folder is not None:
                    path = folder / "claims" / f"{item.claim.replace('/', '--')}.json"
                    hashed = get_claim(item.claim).protocol_hash(item.seeds, MASTER_SEED)
                    write_atomically(path, (json.dumps({"protocol": hashed} | asdict(item)) + "\n").encode())
            progress.advance()
    result = Calibration(tuple(finished[name] for name in chosen))
    if folder is not None:
        result._write(folder, command)
    return result


def _already_finished(folder: Path | None, chosen: Sequence[str], repeats: int) -> dict[str, ClaimCalibration]:
    """What an earlier call left for claims that have not changed since."""
    if folder is None:
        raise ConfigError("resume without out; name the folder of the interrupted calibration")
    finished = {}
    for name in chosen:
        path = folder / "claims" / f"{name.replace('/', '--')}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        protocol = content.pop("protocol")
        same = protocol == get_claim(name).protocol_hash(_statistical(name).seeds, MASTER_SEED)
        if same and content["repeats"] == repeats and content.get("draws") == DRAWS:
            finished[name] = ClaimCalibration(**content)
    return finished


def _statistical(name: str) -> StatisticalClaim:
    claim = get_claim(name)
    assert isinstance(claim, StatisticalClaim)
    return claim


def _compares_arms(claim: StatisticalClaim) -> bool:
    return len(claim.estimand.arms) > 1 and claim.estimand.alike


def _null_arms(claim: StatisticalClaim) -> dict[str, dict[str, Any]]:
    """The arms of the null run: the last one in the place of each, or those of the falsifier."""
    if _compares_arms(claim):
        *_, reference = claim.arms.values()
        return {arm: dict(reference) for arm in claim.arms}
    return {arm: dict(claim.falsifier.arms.get(arm, claim.arms[arm])) for arm in claim.estimand.arms}


def _null_key(name: str) -> str:
    claim = _statistical(name)
    arms = list(_null_arms(claim).values())
    return json.dumps(
        [{**lean(claim.setting, claim.estimand.description), **arms[-1]}, repr(claim.tuning)],
        sort_keys=True,
        default=repr,
    )


def _calibrate_group(names: Sequence[str], repeats: int, cache: ArmCache) -> list[ClaimCalibration]:
    import torch

    torch.set_num_threads(1)
    # The one with most seeds first: its simulations serve the others.
    order = sorted(names, key=lambda name: -_statistical(name).seeds)
    return [_calibrate_one(_statistical(name), repeats, cache) for name in order]


def _calibrate_one(claim: StatisticalClaim, repeats: int, cache: ArmCache) -> ClaimCalibration:
    sides = _null_sides(claim, repeats * _size(claim), cache)
    null = _repetitions(claim, sides, repeats)
    compares = paired = _compares_arms(claim)
    at_threshold = found = None
    if compares:
        # On the very same runs an arm differs from itself by exactly what it differs by in truth.
        first = next(iter(sides.values()))
        truth = _truth(claim, [claim.estimand.compute(dict.fromkeys(sides, first))])
    else:
        truth = _truth(claim, null)
    if claim.statistic != "proportion":
        # A falsifier may be quieter than the claim, an arm against itself on other seeds is not.
        noise = null if compares else _own_repetitions(claim, repeats, cache)
        at_threshold = _count(*_drawn(claim, noise, claim.threshold), {"reproduced", "refuted"})
        found = _count(*_drawn(claim, noise, claim.planted_effect), {"reproduced"})
        paired = compares and found < POWER * DRAWS
        if paired:
            own = _own_repetitions(claim, repeats, cache)
            found = _count(*_drawn(claim, own, claim.planted_effect), {"reproduced"})
    return ClaimCalibration(
        claim=claim.id,
        repeats=repeats,
        seeds=claim.seeds,
        null="itself" if compares else "falsifier",
        truth=truth,
        false_verdicts=_count(claim, null, _FALSE[truth]),
        draws=DRAWS,
        at_threshold=at_threshold,
        planted=claim.planted_effect,
        found=found,
        paired=paired,
    )


def _null_sides(claim: StatisticalClaim, seeds: int, cache: ArmCache | None = None) -> dict[str, Trajectories]:
    """The arms of the null run, each with a master seed of its own where they are compared."""
    arms = tune(claim, _null_arms(claim), cache).arms
    return {
        name: run_arms(lean(claim.setting, claim.estimand.description), {name: arm}, seeds, MASTER_SEED + index, cache)[
            name
        ]
        for index, (name, arm) in enumerate(arms.items())
    }


def _repetitions(claim: StatisticalClaim, sides: Mapping[str, Trajectories], repeats: int) -> list[Array]:
    estimands = []
    for repeat in range(repeats):
        first = repeat * _size(claim)
        blocks = {arm: side.block(first, first + _size(claim)) for arm, side in sides.items()}
        estimands.append(claim.estimand.compute(blocks))
    return estimands


def _size(claim: StatisticalClaim) -> int:
    return min(claim.seeds, SEEDS_PER_REPETITION)


def _drawn(
    claim: StatisticalClaim, repetitions: Sequence[Array], effect: float
) -> tuple[StatisticalClaim, list[Array]]:
    """Samples of as many seeds as the claim has, from all repetitions, moved so that the effect is their truth.

    With them the claim that judges them: a declared support has moved with the values.
    """
    moved, generator = _moved(claim, repetitions, effect), np.random.default_rng(0)
    pool = np.concatenate(moved)
    if claim.estimand.support is not None:
        shift = float(np.nanmean(pool - np.concatenate(repetitions)))
        low, high = claim.estimand.support
        claim = replace(claim, estimand=replace(claim.estimand, support=(low + shift, high + shift)))
    return claim, [pool[generator.integers(len(pool), size=claim.seeds)] for _ in range(DRAWS)]


def _own_repetitions(claim: StatisticalClaim, repeats: int, cache: ArmCache) -> list[Array]:
    """The claim's own experiment, its arms paired as they are."""
    chosen = tune(claim, claim.arms, cache).arms
    needed = {arm: chosen[arm] for arm in claim.estimand.arms}
    runs = run_arms(lean(claim.setting, claim.estimand.description), needed, repeats * _size(claim), OWN_SEED, cache)
    return _repetitions(claim, runs, repeats)


def _count(claim: StatisticalClaim, repetitions: Sequence[Array], verdicts: set[str]) -> int:
    return sum(judge_values(claim, values).verdict in verdicts for values in repetitions)


def _truth(claim: StatisticalClaim, repetitions: Sequence[Array]) -> Truth:
    """What all values together say of the statement; on the threshold where they cannot tell."""
    values = np.concatenate(repetitions)
    values = values[~np.isnan(values).reshape(len(values), -1).any(1)]
    if not len(values):
        raise ConfigError(f"claim {claim.id}: the estimand has no value in any null run")
    order, threshold, direction = claim.statistic == "smallest step", claim.threshold, claim.direction
    judged = np.diff(values, axis=1) * (1 if direction == "greater" else -1) if order else values[:, None]
    if order:
        direction, threshold = "greater", abs(threshold)
    if (np.ptp(judged, axis=0) == 0).all():
        # The same in every seed of all repetitions: known, where a verdict from one of them would have to ask.
        same = float(judged[0].min())
        bounds = Interval(same, same, same, _TRUTH_LEVEL, "all values equal", len(values))
    elif claim.statistic == "smallest step":
        bounds = smallest_step(values, "increasing" if claim.direction == "greater" else "decreasing", _TRUTH_LEVEL)
    else:
        estimator: Estimator = "mean" if claim.statistic == "proportion" else claim.statistic
        bounds = interval(values, _TRUTH_LEVEL, estimator)
    return _TRUTHS[decide(bounds, direction, threshold).verdict]


def _moved(claim: StatisticalClaim, repetitions: Sequence[Array], effect: float) -> list[Array]:
    """The estimands of the repetitions, moved so that the mean of all is the effect."""
    values = np.stack(repetitions)
    if values.ndim == 3:
        # "In this order": every adjacent step is the effect.
        centred = values - np.nanmean(values, (0, 1))
        return list(centred + effect * np.arange(values.shape[2]))
    if np.ptp(values) == 0:
        # Moving a constant by a difference would leave a rounding error on one side of the effect.
        return list(np.full_like(values, effect))
    centre = interquartile_mean(values.ravel()) if claim.statistic == "iqm" else np.nanmean(values)
    return list(values + (effect - centre))


def calibration_page(record: Mapping[str, Any]) -> str:
    """A calibration.json as Markdown: the rates, then a row per claim, then who is left out and why."""
    rows = [
        ClaimCalibration(**{key: value for key, value in row.items() if key != "power"}) for row in record["claims"]
    ]
    done = Calibration(tuple(rows))
    low, high = done.rate_interval
    threshold_false, threshold_all = done.at_threshold
    powers = [row.power for row in rows if row.power is not None]
    weak = sorted((row for row in rows if row.power is not None and row.power < POWER), key=lambda row: row.power or 0)
    left_out = {name: reason for name in claim_names() if (reason := reason_to_skip(name)) is not None}
    judged = {row.claim for row in rows}
    absent = [name for name in calibrated_claims() if name not in judged]
    networks = [name for name in left_out if isinstance(get_claim(name), StatisticalClaim)]
    lines = [
        "# Calibration of the verdicts",
        "",
        "Generated from the result of `testbed calibrate`; `analysis/calibration.py` says what a null run is, which",
        "verdicts in it are false, and where the power comes from.",
        "",
        f"- **False verdicts with nothing to find: {done.false_verdicts} of {done.verdicts}, "
        f"{done.false_verdicts / done.verdicts:.2%}**, 95 % interval [{low:.2%}, {high:.2%}], from {len(rows)} claims. "
        "Claims that share a setting share its simulations, so that their verdicts are not independent and the "
        "interval is too narrow by an unknown amount.",
        f"- Verdicts where the truth is the threshold itself: {threshold_false} of {threshold_all}, "
        f"{threshold_false / threshold_all:.2%}; nominal is 1 %.",
        f"- Power at the planted effect: at least {POWER:g} for {sum(power >= POWER for power in powers)} of "
        f"{len(powers)} claims; the smallest is {min(powers):.2f}, the mean {np.mean(powers):.3f}.",
        f"- A repetition has the claim's own number of seeds, at most {SEEDS_PER_REPETITION}; power and verdicts at "
        "the threshold are shares of samples of the claim's own number, drawn from the seeds of all repetitions.",
        "",
    ]
    if weak:
        lines += ["Below it: " + ", ".join(f"`{row.claim}` {row.power:.2f}" for row in weak) + ".", ""]
    lines += [
        "| claim | seeds | null run | the statement there | false verdicts | at the threshold | planted | power |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.claim):
        null = "an arm against itself" if row.null == "itself" else "the falsifier"
        power = "none" if row.power is None else f"{row.power:.2f}{' (paired)' if row.paired else ''}"
        at = "none" if row.at_threshold is None else f"{row.at_threshold}/{row.draws}"
        lines.append(
            f"| `{row.claim}` | {row.seeds} | {null} | {row.truth} | {row.false_verdicts}/{row.repeats} | {at} | "
            f"{row.planted:.3g} | {power} |"
        )
    if absent:
        lines += ["", "Not calibrated as they stand: " + ", ".join(f"`{name}`" for name in absent) + "."]
    lines += [
        "",
        f"Left out: the {len(left_out) - len(networks)} exact claims, which have no sampling error, and the "
        f"{len(networks)} whose policies are networks, which would take hours: "
        + ", ".join(f"`{name}`" for name in networks)
        + ".",
    ]
    return "\n".join(lines)
