"""What a claim is: data. Its verdict is computed by `analysis.judging.run`, never by the claim itself."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal, TypeVar, get_args

from analysis.judging.estimands import Estimand, Measure
from analysis.judging.on_record import OnRecord
from analysis.statistics import MINIMUM_SEEDS, VERDICT_LEVEL, Direction, Verdict
from envs.catalogue import make_environment
from models.policy import policies
from testbed.diagnostics import GLOSSARY
from testbed.errors import ConfigError, TestbedError, UnknownNameError
from testbed.objectives import make_objective
from testbed.registry import Registry, parse_call
from testbed.simulation import simulate
from testbed.simulation.settings import Settings

__all__ = [
    "DEFAULT_SEEDS",
    "Claim",
    "ExactClaim",
    "Falsifier",
    "Null",
    "Statistic",
    "StatisticalClaim",
    "Tuning",
    "claim_names",
    "get_claim",
    "register",
]

Tier = Literal["quick", "full", "networks"]
Statistic = Literal["mean", "iqm", "median", "proportion", "smallest step"]
DEFAULT_SEEDS = 32
"""Seeds of a claim that does not say how many."""


@dataclass(frozen=True)
class Falsifier:
    """A sabotaged variant of a claim's experiment; a claim that passes on it proves nothing.

    Attributes:
        description: what was sabotaged, in a sentence.
        arms: for a statistical claim, the arms that replace the claim's arms of the same name.
        measure: for an exact claim, the measurement that replaces the claim's.
    """

    description: str
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measure: Callable[[], float] | None = None


@dataclass(frozen=True)
class Null:
    """The same arms without a reward signal, run and reported beside a claim about entropy; it has no verdict.

    Attributes:
        setting: what replaces the claim's setting, an environment without a signal among it.
        estimand: one number per seed; the claim's own may not exist where no reward is ever reached.
    """

    setting: Mapping[str, Any]
    estimand: Estimand


@dataclass(frozen=True)
class Tuning:
    """An equal budget for every arm: its learning rate is the best of one grid, on seeds that never judge.

    Attributes:
        grid: the learning rates every arm tries.
        measure: what is compared, one number per seed, averaged over `seeds`.
        better: which end of the measure is the better one.
        seeds: seeds per rate.
        master_seed: of the tuning runs; the verdict's is another one.
    """

    grid: tuple[float, ...]
    measure: Measure
    better: Literal["higher", "lower"] = "higher"
    seeds: int = 8
    master_seed: int = 10_001


@dataclass(frozen=True, kw_only=True)
class Claim(ABC):
    """A published statement with everything needed to judge it.

    Raises:
        ConfigError: at import, when a field is missing or out of its range; the claim's id and its file are named.
    """

    id: str
    """`paper/short-name`, unique."""
    paper: str
    """The paper's short name, as in the report's headings."""
    title: str
    """A few words."""
    source: str
    """Where the statement was published: paper, arXiv id, and where in it."""
    statement: str
    """What is claimed, as it is tested, in a sentence."""
    scope: str
    """Where the verdict holds, and what it does not say."""
    unit: str
    """Unit of the estimand."""
    falsifier: Falsifier
    """The sabotaged variant that must fail."""
    judges: tuple[str, ...] = ()
    """Numbers of the ledger's statements it judges, its own first; a registered claim has one at least."""
    recorded: Verdict
    """The verdict on record; a run that differs makes `testbed verify` exit with 1."""
    notes: tuple[str, ...] = ()
    """What a reader should know: why the toy and the paper may differ, what else was tried."""
    on_record: OnRecord | None = None
    """How it is judged on a recorded run; `None`: it is not about tokens."""
    tier: Tier = "quick"
    """`quick` claims run in `make verify`; `full` ones have policies as cheap, `networks` ones train transformers."""

    def __post_init__(self) -> None:
        for name in ("id", "paper", "title", "source", "statement", "scope", "unit"):
            value = getattr(self, name)
            if value is None or not str(value).strip():
                raise self._refuse(f"{name} is empty; every claim states it")
            if not isinstance(value, str):
                raise self._refuse(f"{name} is {value!r}; expected text")
        self._expect_one_of("tier", Tier)
        self._expect_one_of("recorded", Verdict)
        if not isinstance(self.falsifier, Falsifier):
            raise self._refuse(
                f"falsifier is {self.falsifier!r}; a claim that cannot fail is rejected, give a Falsifier"
            )
        if not str(self.falsifier.description).strip():
            raise ConfigError(
                f"claim {self.id}: its falsifier has no description; a claim that cannot fail is rejected"
            )
        if self.on_record is not None and not isinstance(self.on_record, OnRecord):
            raise self._refuse(f"on_record is {self.on_record!r}; expected an OnRecord")

    def _refuse(self, problem: str) -> ConfigError:
        """The error that names the claim."""
        return ConfigError(f"claim {self.id}: {problem}")

    def _expect_one_of(self, name: str, words: Any) -> None:
        """Refuse a field that is none of the words of a `Literal`."""
        if getattr(self, name) not in get_args(words):
            raise self._refuse(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(get_args(words))}")

    def _expect_number(self, name: str) -> None:
        """Refuse a field that is no finite number."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise self._refuse(f"{name} is {value!r}; expected a finite number")

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What was fixed before the run, as JSON-able data."""

    def protocol_hash(self, seeds: int | None, seed: int) -> str:
        """Sixteen hexadecimal digits that change with any part of the protocol."""
        content = {"id": self.id, "statement": self.statement, "unit": self.unit, "seeds": seeds, "seed": seed}
        text = json.dumps(content | self.protocol(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ExactClaim(Claim):
    """An identity or inequality without randomness: judged by its largest deviation."""

    measure: Callable[[], float]
    """The largest deviation from the statement, in `unit`; 0 where it holds exactly."""
    tolerance: float
    """Largest deviation that counts as rounding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_number("tolerance")
        if not callable(self.measure):
            raise self._refuse(f"measure is {self.measure!r}; expected a function without arguments")
        if self.falsifier.measure is None:
            raise self._refuse("its falsifier has no measure; give the sabotaged measurement")

    def protocol(self) -> dict[str, Any]:
        """The two measurements, as they are written, and the tolerance."""
        assert self.falsifier.measure is not None
        return {
            "measure": _source(self.measure),
            "falsifier": _source(self.falsifier.measure),
            "tolerance": self.tolerance,
        }


@dataclass(frozen=True, kw_only=True)
class StatisticalClaim(Claim):
    """A statement about expectations over seeds: judged by one interval of one number per seed."""

    setting: Mapping[str, Any]
    """Arguments of `simulate` shared by all arms."""
    arms: Mapping[str, Mapping[str, Any]]
    """Name to the arguments of `simulate` that differ, `objective` among them."""
    estimand: Estimand
    """One number per seed from the arms' trajectories."""
    direction: Direction
    """On which side of the threshold the claim lies."""
    threshold: float
    """The smallest effect of interest, in `unit`, fixed before the run."""
    statistic: Statistic = "mean"
    """What the interval is of: a mean, an interquartile mean where tails are heavy, a share of seeds for a yes-or-no
    estimand, or the smallest adjacent step of an estimand with one column per condition ("in this order")."""
    planted: float | None = None
    """The value of the estimand at which the experiment should reproduce the claim in nine of ten repetitions, used
    by the calibration; `None`: twice the threshold."""
    null: Null | None = None
    """The arms without a reward signal; every claim about entropy has it."""
    why_no_null: str = ""
    """Why a claim whose estimand reads an entropy does without; a sentence."""
    controls: tuple[Estimand, ...] = ()
    """Other readings of the same runs, reported beside the claim without a verdict: an entropy that is compared at
    equal reward is also read at equal cumulative divergence."""
    tuning: Tuning | None = None
    """How each arm's learning rate is chosen; `None`: all arms use the setting's."""
    acts: tuple[tuple[str, str], ...] = ()
    """(arm, metric) pairs that must be above 0 somewhere, or the claim is vacuous: the mechanism never acted."""
    curves: tuple[str, ...] = ("exact/entropy", "exact/regret")
    """Metrics drawn in the report, one panel each."""
    seeds: int = DEFAULT_SEEDS
    """Seeds of a verdict; at least 5."""
    level: float = VERDICT_LEVEL
    """Level of the interval that decides."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.estimand, Estimand):
            raise self._refuse(f"estimand is {self.estimand!r}; expected an Estimand, such as difference(…)")
        self._expect_one_of("direction", Direction)
        self._expect_one_of("statistic", Statistic)
        self._expect_number("threshold")
        if self.direction == "equivalent" and not self.threshold > 0:
            raise self._refuse(f"threshold is {self.threshold}; expected a positive number, half the width of a range")
        if self.planted is not None:
            self._expect_number("planted")
        elif self.threshold == 0:
            raise self._refuse("threshold is 0 and planted is not given; name the effect the experiment should see")
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < MINIMUM_SEEDS:
            raise self._refuse(
                f"seeds is {self.seeds!r}; expected a whole number of at least {MINIMUM_SEEDS}; fewer never give a "
                "verdict"
            )
        self._expect_number("level")
        if not 0 < self.level < 1:
            raise self._refuse(f"level is {self.level}; expected a number between 0 and 1, such as {VERDICT_LEVEL}")
        if not self.falsifier.arms:
            raise self._refuse("its falsifier replaces no arm; give the sabotaged arms")
        unknown = set(self.falsifier.arms) - set(self.arms)
        if unknown:
            raise self._refuse(f"the falsifier replaces {sorted(unknown)}; the claim's arms are {sorted(self.arms)}")
        unrewarded = () if self.null is None else (self.null.estimand,)
        read = (self.estimand, *self.controls, *unrewarded)
        needed = set().union(*(item.arms for item in read), (arm for arm, _ in self.acts))
        if needed - set(self.arms):
            raise self._refuse(f"the estimand reads {sorted(needed)}; the claim's arms are {sorted(self.arms)}")
        try:
            self.check_experiment()
        except TestbedError as error:
            raise self._refuse(str(error)) from error

    def check_experiment(self) -> None:
        """Refuse what cannot be run or measured, by names alone: nothing is simulated and no table is made.

        Raises:
            ConfigError, UnknownNameError: the first mistake; the caller adds the claim.
        """
        for metric in (*self.curves, *(metric for _, metric in self.acts)):
            if metric not in GLOSSARY:
                raise UnknownNameError("metric", metric, GLOSSARY)
        for arm in (*self.arms.values(), *self.falsifier.arms.values()):
            _check_arguments({**self.setting, **arm})
        if self.null is not None:
            _check_arguments({**self.setting, **next(iter(self.arms.values())), **self.null.setting})

    @property
    def planted_effect(self) -> float:
        """The value of the estimand the calibration plants."""
        return 2 * self.threshold if self.planted is None else self.planted

    def protocol(self) -> dict[str, Any]:
        """Everything that decides a number of the experiment."""
        return {
            "setting": dict(self.setting),
            "arms": {name: dict(arm) for name, arm in self.arms.items()},
            "falsifier": {name: dict(arm) for name, arm in self.falsifier.arms.items()},
            "estimand": self.estimand.description,
            "direction": self.direction,
            "threshold": self.threshold,
            "statistic": self.statistic,
            "level": self.level,
            "controls": [item.description for item in self.controls],
            "null": None if self.null is None else [dict(self.null.setting), self.null.estimand.description],
            "tuning": None
            if self.tuning is None
            else [self.tuning.grid, self.tuning.measure.description, self.tuning.seeds, self.tuning.master_seed],
        }


_ARGUMENTS = frozenset(inspect.signature(simulate).parameters) - {"seeds", "seed", "record"}
"""What a setting and an arm may say; the seeds are the claim's."""
_SETTINGS = frozenset(item.name for item in fields(Settings))


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of `simulate` that it does not know or take, without making an environment's tables.

    Raises:
        ConfigError, UnknownNameError: the first mistake.
    """
    for name in arguments:
        if name not in _ARGUMENTS:
            raise UnknownNameError("argument of simulate", str(name), _ARGUMENTS)
    for name in ("objective", "env"):
        if name not in arguments:
            raise ConfigError(f"an arm has no {name}; give it in the setting or in every arm")
    loop = {name: value for name, value in arguments.items() if name in _SETTINGS}
    for kind, value in {**arguments, "loop": loop}.items():
        # Claims share objectives, environments and settings: each is checked once.
        if kind in _CHECKS and (kind, repr(value)) not in _checked:
            _CHECKS[kind](value)
            _checked.add((kind, repr(value)))


def _check_environment(env: Any) -> None:
    if isinstance(env, str):
        make_environment(env)


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "objective": make_objective,
    "env": _check_environment,
    "model": lambda model: policies[parse_call(model)[0]],
    "loop": lambda loop: Settings(**loop),
}
_checked: set[tuple[str, str]] = set()


registry: Registry[Claim] = Registry("claim", package="analysis.claims")
AnyClaim = TypeVar("AnyClaim", bound=Claim)


def register(claim: AnyClaim) -> AnyClaim:
    """File a claim under its id.

    Raises:
        ConfigError: it judges no statement of the ledger, or its id is taken.
    """
    if not claim.judges:
        raise ConfigError(f"claim {claim.id}: judges is empty; name the ledger's statements it judges, such as ('D5',)")
    return registry.register(claim.id)(claim)


def claim_names() -> list[str]:
    """Every claim's id, sorted."""
    return registry.names()


def get_claim(name: str) -> Claim:
    """The claim of that id.

    Raises:
        UnknownNameError: no such claim; the message has the nearest id.
    """
    return registry[name]


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return repr(function)
