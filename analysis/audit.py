"""A report card for one objective, published or not: the laws, what it is the same as, and how it behaves under stress.

    testbed audit my_loss.py:MyObjective

Three questions, in this order. *Is it a sound loss?* Every law of `analysis.laws` is checked. *Is it new?* On random
batches its gradient is compared with that of every registered objective. *What does it do?* On environments with known
optima it is trained beside a reference, over paired seeds and with the reference's reduction and step size, and each
measure is given for both and as a paired difference with a 90 % interval. How both depend on the step size is shown as
well, because an objective that takes larger steps looks better or worse for that reason alone. No total score is made
of it: which measure matters is for the reader to say.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.gradient_weights import describe
from analysis.judging.estimands import Measure, average, final, largest
from analysis.judging.settings import MODULAR_SUM, NULL_REWARD, STALE
from analysis.laws import Drawn, Finding, check_laws, draw, loss_and_gradient
from analysis.phenomena import detect
from analysis.statistics import MINIMUM_SEEDS, interval, proportion_interval
from analysis.trajectories import Trajectories, curve
from envs import exact, make_spec
from testbed.diagnostics import metric_info
from testbed.errors import ConfigError, TestbedError, did_you_mean
from testbed.objectives import Objective, make_objective, objective_names
from testbed.output import fresh_folder, missing_as_null
from testbed.progress import LateProgress
from testbed.registry import parse_call
from testbed.simulation import SimulationWarning, simulate
from testbed.simulation.run import environment_facts
from testbed.testing.functions import FunctionObjective

__all__ = [
    "LEARNING_RATES",
    "STRESSES",
    "Audit",
    "Measured",
    "Stress",
    "StressResult",
    "audit",
    "load_objective",
    "twins",
]

AUDITED, REFERENCE = "audited", "reference"
LEARNING_RATES = (1.0, 4.0, 16.0, 64.0, 256.0)
"""Step sizes at which the sensitivity is measured."""


@dataclass(frozen=True)
class Stress:
    """A setting that brings out one way in which objectives differ.

    Attributes:
        name: a few words.
        question: what the setting asks.
        setting: arguments of `simulate`.
        measures: what is read from each run.
        curves: metrics drawn over the rollouts.
    """

    name: str
    question: str
    setting: Mapping[str, Any]
    measures: tuple[Measure, ...]
    curves: tuple[str, ...] = ("exact/entropy", "exact/regret")


def _change(metric: str) -> Measure:
    return Measure(f"change of {metric} from the start", lambda run: run[metric][-1] - run[metric][0])


STRESSES: tuple[Stress, ...] = (
    Stress(
        "No signal",
        "Every arm is the same coin, so nothing can be learned. Where does the entropy go all the same?",
        NULL_REWARD,
        (_change("exact/entropy"), average("exact/kl_step")),
        ("exact/entropy", "exact/kl_step"),
    ),
    Stress(
        "A rare arm",
        "One arm in a hundred is better, and it is hardly ever drawn. How much is lost until it is found?",
        MODULAR_SUM | {"env": "RareArm-v1"},
        (average("exact/regret"), final("exact/regret")),
    ),
    Stress(
        "Many right answers",
        "A quarter of all sequences is right. How fast is the task solved, and how much variety is left at the end?",
        MODULAR_SUM,
        (average("exact/regret"), final("exact/entropy")),
    ),
    Stress(
        "One right answer",
        "A single sequence is right, so losing all entropy is correct here. Does it get there?",
        MODULAR_SUM | {"env": "Copy-v1(length=3,vocabulary=4)"},
        (average("exact/regret"), final("exact/regret")),
    ),
    Stress(
        "Stale rollouts",
        "Twelve tokens, drawn by the policy of eight rollouts ago. Does it still learn, and does it stay near it?",
        STALE,
        (final("exact/regret"), average("exact/kl_step"), largest("gradient/norm_max")),
        ("exact/regret", "ratio/log_abs_mean"),
    ),
    Stress(
        "A sampler that disagrees",
        "The sampler's log-probabilities carry noise of half a nat. What does that cost?",
        MODULAR_SUM | {"mismatch": 0.5},
        (average("exact/regret"), final("exact/entropy"), largest("gradient/norm_max")),
    ),
    Stress(
        "Answers of any length",
        "Short and long sequences can be right, and a wrong one is usually long. Does the length steer the update?",
        MODULAR_SUM | {"env": "VariableLength-v1"},
        (average("exact/regret"), final("exact/entropy")),
    ),
)
"""Every stress, each a question."""


@dataclass(frozen=True)
class Measured:
    """One measure of a stress; estimates are means over seeds with 90 % intervals, `[estimate, low, high]`.

    Attributes:
        description: what is measured.
        unit: of all three.
        audited: the audited objective.
        reference: the reference.
        difference: audited minus reference, seed by seed.
    """

    description: str
    unit: str
    audited: tuple[float, float, float]
    reference: tuple[float, float, float]
    difference: tuple[float, float, float]

    @property
    def reading(self) -> str:
        """`higher`, `lower` or `no clear difference`, by the interval of the difference."""
        estimate, low, high = self.difference
        if math.isnan(estimate):
            return "not measured"
        return "higher" if low > 0 else "lower" if high < 0 else "no clear difference"


@dataclass(frozen=True)
class StressResult:
    """What came out of a stress.

    Attributes:
        name: the stress's.
        question: the stress's.
        not_run: why it could not be run; empty where it was.
        measures: what was measured.
        phenomena: detector to the share of seeds in which it fired, audited and reference, each
            `[share, low, high]`.
        curves: for the figures.
    """

    name: str
    question: str
    not_run: str
    measures: tuple[Measured, ...] = ()
    phenomena: Mapping[str, Mapping[str, tuple[float, float, float]]] | None = None
    curves: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Audit:
    """A finished audit.

    Attributes:
        folder: where `audit.json` and `report.html` lie.
        objective: the audited objective, as a name.
        reference: what it was compared with.
        findings: one per law.
        twins: registered objectives with the same gradient.
        stresses: one per stress.
    """

    folder: Path
    objective: str
    reference: str
    findings: tuple[Finding, ...]
    twins: tuple[str, ...]
    stresses: tuple[StressResult, ...]

    @property
    def verdict(self) -> tuple[str, str, str]:
        """Three sentences: is it a sound loss, is it new, and where does it do better or worse than the reference."""
        return _verdict(self.objective, self.reference, self.findings, self.twins, self.stresses)

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The laws it breaks without declaring it."""
        return tuple(finding for finding in self.findings if finding.outcome == "broken")

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.folder / "report.html"


def load_objective(target: str) -> Objective:
    """An objective by registered name, or from a Python file, which is executed.

    Args:
        target: `name`, `name(key=value,…)`, or `file.py:Class` with the same brackets for hyper-parameters, or
            `file.py:function` for a function of tensors that returns one loss per token, with `reduction` at most.

    Raises:
        ConfigError: no such file, the file fails, or what it names is no objective.
        UnknownNameError: no registered objective of that name.

    Example:
        >>> load_objective("dapo(clip_low=0.1)").label()
        'dapo(clip_low=0.1)'
    """
    file, separator, call = target.partition(".py:")
    if not separator:
        return make_objective(target)
    path = Path(f"{file}.py")
    name, arguments = parse_call(call)
    found = getattr(_module(path), name, None)
    if found is None:
        names = [key for key, value in vars(_module(path)).items() if _is_objective(value)]
        hint = did_you_mean(name, names) or "."
        raise ConfigError(f"{path} has nothing called {name!r}{hint} Its objectives: {', '.join(names) or 'none'}")
    if isinstance(found, Objective) and not arguments:
        _named(type(found))
        return found
    if inspect.isfunction(found) and not set(arguments) - {"reduction"}:
        return FunctionObjective(function=found, **arguments)
    if not _is_objective(found):
        raise ConfigError(
            f"{path}:{name} is {found!r}; expected a frozen dataclass that derives from testbed.objectives.Objective "
            "and has a method token_loss(batch), such as those in testbed/objectives, or a function (log_probs, "
            "old_log_probs, advantages, mask) that returns one loss per token"
        )
    _named(found)
    try:
        return found(**arguments)
    except TypeError as error:
        raise ConfigError(f"{path}:{name} cannot be made: {error}") from error


def twins(objective: Objective) -> list[str]:
    """Registered objectives, with the paper's hyper-parameters, whose gradient is the same on random batches.

    The reduction is taken over, so that only the token's weight is compared. "The same" is 1e-9 of the largest entry.
    Where none is the same, others are tried with this one's numbers: those of equal name, and one more number each.

    Example:
        >>> twins(make_objective("ppo(clip_high=0.28)"))
        ['dapo']
        >>> twins(make_objective("bandpo"))
        ['dppo(threshold=0.05)']
    """
    # Tokens on all sides of every interval, enough of them for a rule that drops one in a thousand; and once more with
    # few positive ones, which a rule that balances them answers.
    drawn = draw(160, 64)
    # Nothing is more probable than certain: bounds of probabilities need not agree beyond 1.
    drawn["log_probs"] = drawn["log_probs"].clamp(max=-1e-3)
    few = torch.where(drawn["advantages"] > 1, drawn["advantages"], -drawn["advantages"].abs())
    batches = [drawn, Drawn({**drawn, "advantages": few})]
    own = [_gradient(objective, given) for given in batches]
    others = [
        other
        for other in map(make_objective, objective_names())
        if type(other) is not type(objective) and not hasattr(other, "base")
    ]

    def same(other: Objective) -> bool:
        for given, mine in zip(batches, own, strict=True):
            gradient = _gradient(replace(other, reduction=objective.reduction), given)
            if mine is None or gradient is None or not _equal(gradient, mine):
                return False
        return True

    found = [other.name for other in others if same(other)]
    if found:
        return found
    candidates = (next(filter(same, _with_numbers_of(objective, other)), None) for other in others)
    return [other.label() for other in candidates if other is not None]


def _equal(gradient: torch.Tensor, own: torch.Tensor) -> bool:
    return float((gradient - own).abs().max()) <= 1e-9 * float(own.abs().max())


def _with_numbers_of(objective: Objective, other: Objective) -> Iterator[Objective]:
    """Another objective with the hyper-parameters of equal name, and one of its numbers taken from this one."""
    own = {item.name: getattr(objective, item.name) for item in fields(objective) if item.name != "reduction"}
    names = [item.name for item in fields(other)]
    shared: dict[str, Any] = {name: value for name, value in own.items() if name in names}
    numbers = sorted({value for value in own.values() if isinstance(value, float)})
    free = [name for name in names if name not in shared and isinstance(getattr(other, name), float)]
    changes: list[dict[str, Any]] = [{}, *({name: number} for name in free for number in numbers)]
    for change in changes:
        try:
            yield replace(other, **shared, **change)
        except TestbedError:
            # Out of the other's range.
            continue


def audit(
    target: str | Objective,
    *,
    against: str = "ppo",
    seeds: int = 32,
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
) -> Audit:
    """Check an objective, measure it beside a reference, and write `audit.json` and `report.html`.

    Args:
        target: see `load_objective`; or an objective.
        against: the reference, a registered objective.
        seeds: paired seeds per stress, at least 5.
        seed: master seed.
        out: folder to write; `None`: a new one below `runs/`.
        command: how this was started, for the record.

    Raises:
        ConfigError: too few seeds, or the target is no objective.
        UnknownNameError: no such objective.
        RunExistsError: `out` already holds something; nothing is run.
        StorageError: the disk is full; nothing is kept.
    """
    from analysis.report.audit import write_audit_report

    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < MINIMUM_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}; an interval needs at least {MINIMUM_SEEDS}")
    objective = target if isinstance(target, Objective) else load_objective(target)
    reference = make_objective(against)
    with fresh_folder(out, "audit") as folder:
        findings = check_laws(objective)
        arms = {AUDITED: objective, REFERENCE: replace(reference, reduction=objective.reduction)}
        results = []
        sensitivity: Mapping[str, Any] | None = None
        with LateProgress("auditing", len(STRESSES) + 1) as progress:
            unfit = _unfit(findings)
            for stress in STRESSES:
                results.append(
                    StressResult(stress.name, stress.question, unfit) if unfit else _run(stress, arms, seeds, seed)
                )
                progress.advance()
            if not all(result.not_run for result in results):
                sensitivity = _sensitivity(arms, seeds, seed)
        same = twins(objective)
        content = {
            "run": {
                "versions": environment_facts(),
                "command": command,
                "seeds": seeds,
                "seed": seed,
                "reduction": objective.reduction,
                "settings": {
                    stress.name: {key: str(value) for key, value in stress.setting.items()} for stress in STRESSES
                },
            },
            "objective": objective.label(),
            "reference": reference.label(),
            "description": describe(objective),
            "weights": _weights(objective),
            "laws": [asdict(finding) for finding in findings],
            "twins": same,
            "verdict": _verdict(objective.label(), reference.label(), findings, same, results),
            "stresses": [
                asdict(result) | {"measures": [asdict(item) | {"reading": item.reading} for item in result.measures]}
                for result in results
            ],
            "sensitivity": sensitivity,
        }
        text = json.dumps(missing_as_null(content), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
        write_audit_report(folder)
    return Audit(folder, objective.label(), reference.label(), tuple(findings), tuple(same), tuple(results))


def _verdict(
    objective: str, reference: str, findings: Sequence[Finding], same: Sequence[str], stresses: Sequence[StressResult]
) -> tuple[str, str, str]:
    broken = [finding.law for finding in findings if finding.outcome == "broken"]
    exempt = [finding.law for finding in findings if finding.outcome == "exempt"]
    if broken:
        sound = f"{objective} breaks {len(broken)} of {len(findings)} laws that every loss obeys: {', '.join(broken)}."
    else:
        declared = f", {len(exempt)} of them by a declared exception ({', '.join(exempt)})" if exempt else ""
        sound = f"{objective} keeps the {len(findings)} laws that every loss obeys{declared}."
    new = f"Its gradient is that of {', '.join(same)}." if same else "No registered objective has the same gradient."
    regrets = [
        (stress.name.lower(), measure.reading)
        for stress in stresses
        for measure in stress.measures
        if measure.description.endswith("exact/regret over the steps") or "exact/regret after" in measure.description
    ]
    sides = {side: [name for name, reading in regrets if reading == side] for side in ("lower", "higher")}
    if not regrets:
        return sound, new, f"It was not measured beside {reference}."
    told = [f"{side} under {_listed(names)}" for side, names in sides.items() if names]
    rest = "clearly different nowhere" if not told else f"{' and '.join(told)}, and not clearly different elsewhere"
    return sound, new, f"Beside {reference}, at its step size and over paired seeds, its regret is {rest}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in dict.fromkeys(names))


# -- the pieces ------------------------------------------------------------------------------------------------------


def _module(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; expected file.py:Class")
    name = f"audited_{abs(hash(path.resolve()))}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # dataclasses look their module up while the class is made.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _named(objective_class: type[Objective]) -> None:
    """A class that is registered nowhere goes by its own name."""
    if not hasattr(objective_class, "name"):
        objective_class.name = objective_class.__name__


def _is_objective(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Objective) and value is not Objective


def _gradient(objective: Objective, given: Drawn) -> torch.Tensor | None:
    try:
        return loss_and_gradient(objective, given.batch())[1]
    except Exception:
        return None


def _unfit(findings: Sequence[Finding]) -> str:
    """Why an objective cannot be trained at all, or an empty string."""
    first = findings[0]
    return f"There is nothing to train with while {first.law!r} is broken" if first.outcome == "broken" else ""


def _run(stress: Stress, arms: Mapping[str, Objective], seeds: int, seed: int) -> StressResult:
    try:
        runs = _simulate(stress.setting, arms, seeds, seed)
    except Exception as error:
        # Somebody else's code may raise anything.
        said = str(error).splitlines() or ["no message"]
        return StressResult(stress.name, stress.question, f"{type(error).__name__}: {said[0]}")
    drawn = {_side_label(name, arms): run for name, run in runs.items()}
    optimum = exact.maximum_entropy_optimum(make_spec(stress.setting["env"])).entropy
    return StressResult(
        stress.name,
        stress.question,
        "",
        tuple(_measured(measure, runs) for measure in stress.measures),
        _phenomena(runs, np.asarray(optimum, dtype=np.float64)),
        tuple(found for metric in stress.curves if (found := curve(metric, drawn))["series"]),
    )


def _side_label(side: str, arms: Mapping[str, Objective]) -> str:
    """What a side is called in a figure: the objective, and the side where both are the same."""
    labels = {name: objective.label() for name, objective in arms.items()}
    return labels[side] if len(set(labels.values())) == len(labels) else f"{labels[side]}, {side}"


def _simulate(
    setting: Mapping[str, Any], arms: Mapping[str, Objective], seeds: int, seed: int
) -> dict[str, Trajectories]:
    with warnings.catch_warnings():
        # An objective whose ratios never move is what the reader sees in the curves.
        warnings.simplefilter("ignore", SimulationWarning)
        return {
            name: Trajectories(simulate(objective, **{**setting, "seeds": seeds, "seed": seed}).table)
            for name, objective in arms.items()
        }


def _measured(measure: Measure, runs: Mapping[str, Trajectories]) -> Measured:
    values = {name: measure.read(run) for name, run in runs.items()}
    return Measured(
        measure.description,
        _unit(measure.description),
        _estimate(values[AUDITED]),
        _estimate(values[REFERENCE]),
        _estimate(values[AUDITED] - values[REFERENCE]),
    )


def _unit(description: str) -> str:
    metric = next(word for word in description.split() if "/" in word)
    unit = metric_info(metric).unit
    return "" if unit == "1" else unit


def _estimate(values: np.ndarray) -> tuple[float, float, float]:
    if np.isnan(values).any():
        return (math.nan, math.nan, math.nan)
    bounds = interval(values)
    return (bounds.estimate, bounds.low, bounds.high)


def _phenomena(
    runs: Mapping[str, Trajectories], optimum: np.ndarray
) -> dict[str, dict[str, tuple[float, float, float]]]:
    onsets = {name: detect(run, optimum) for name, run in runs.items()}
    shares: dict[str, dict[str, tuple[float, float, float]]] = {}
    for detector in onsets[AUDITED]:
        bounds = {name: proportion_interval(found[detector].observed) for name, found in onsets.items()}
        shares[detector] = {name: (item.estimate, item.low, item.high) for name, item in bounds.items()}
    return shares


def _sensitivity(arms: Mapping[str, Objective], seeds: int, seed: int) -> dict[str, Any]:
    """Mean regret over the run against the step size, both sides, on the task with many right answers.

    A step size at which a policy diverges is a gap.
    """
    measure, series = average("exact/regret"), []

    def regret(objective: Objective, rate: float) -> tuple[float, float, float]:
        try:
            runs = _simulate(MODULAR_SUM | {"learning_rate": rate}, {AUDITED: objective}, seeds, seed)
        except Exception:
            return (math.nan, math.nan, math.nan)
        return _estimate(measure.read(runs[AUDITED]))

    for name, objective in arms.items():
        estimates = [regret(objective, rate) for rate in LEARNING_RATES]
        mean, low, high = zip(*estimates, strict=True)
        x = [math.log2(rate) for rate in LEARNING_RATES]
        series.append(
            {"label": _side_label(name, arms), "x": x, "mean": list(mean), "low": list(low), "high": list(high)}
        )
    return {
        "title": "Sensitivity to the step size",
        "x_label": "log2 of the learning rate",
        "y_label": "mean regret over the run (reward)",
        "series": series,
    }


def _weights(objective: Objective) -> list[dict[str, Any]] | None:
    """The panels of `gradient_weight_figure` as data; `None` where the objective cannot be drawn."""
    from analysis.gradient_weights import gradient_weight_panels

    try:
        return gradient_weight_panels(objective)
    except Exception:
        return None
