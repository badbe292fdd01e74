"""`Sweep`: which cells, which seeds, and how they are laid out as blocks of replicas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from envs.automaton import Automaton
from envs.catalogue import Environment, make_environment
from models import make_policy
from testbed.configuration import read_settings, read_yaml
from testbed.errors import ConfigError, UnknownNameError, shown
from testbed.objectives import Objective, make_objective
from testbed.registry import format_call, parse_call
from testbed.simulation.axes import Axis, Range, parse_axis, shortened, sobol
from testbed.simulation.blocks import Block, block_size, replica_elements
from testbed.simulation.estimate import Estimate, available_memory, memory_text
from testbed.simulation.run import environment_facts
from testbed.simulation.settings import MOST_RECORDS, Settings, check_whole
from testbed.simulation.storage import digest_of

__all__ = ["Sweep"]

_WHOLE = ("objective", "env", "model")
_FIXED = ("metrics_every", "sampled_metrics", "dtype", "device", "compile")
"""Settings that every cell shares, because the table's columns or the machine depend on them."""
_SETTINGS = tuple(item.name for item in fields(Settings) if item.name not in _FIXED)
_PROCESS_BYTES = 400 << 20
"""Memory of an interpreter with torch loaded."""
_CELL_BYTES = 2000
"""Memory of a cell while blocks are planned."""
_TRIED = 1000
"""Values of an axis that are tried one by one before anything is drawn; a longer one is a grid."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Settings):
    """A grid, list or sample of settings, each with the same seeds; its fields beside those of `Settings` follow.

    Whatever can differ between replicas of one batch does: numeric hyper-parameters of the objective, the learning
    rate, and parameters of the environment that change its tables alone. What changes the shape of the work (other
    environments, group sizes, epochs, staleness, …) is looped over. No number depends on which replicas share a batch.

    Seeds are paired: seed i has the same random numbers in every cell.

    Raises:
        ConfigError: a setting is out of range, an axis fits several parameters or is varied twice.
        UnknownNameError: an axis that is no parameter; the message has the nearest name.

    Example:
        >>> sweep = Sweep(objective="dapo", env="NullBandit-v1", vary=["clip_low=0.1:0.3:3", "epochs=2,4"], seeds=5)
        >>> len(sweep.cells), sweep.cells[0], sweep.estimate().replicas
        (6, {'clip_low': 0.1, 'epochs': 2}, 30)
    """

    KIND: ClassVar[str] = "field of a sweep"

    objective: str | Objective
    """A name, `name(key=value,…)` or an objective."""
    env: str
    """An environment's id, or `id(key=value,…)`."""
    vary: Sequence[str | Axis | Range] = ()
    """The axes, in the notation of `testbed.simulation.axes`; the first one varies slowest. A name may be that of a
    hyper-parameter, a parameter of the environment, a setting, or `objective`, `env` and `model` themselves;
    `objective.name` and `env.name` tell equal names apart."""
    samples: int | None = None
    """Sobol points spread over the axes that are ranges; None: there are no ranges."""
    seeds: int = 32
    """Replicas per cell."""
    seed: int = 0
    """Master seed."""
    model: str = "tabular"
    """A registered policy, or `name(key=value,…)`."""
    chunk: int | None = None
    """Replicas in a block at most; None: as many as stay in a core's cache."""
    steps: int = 100
    """Rollouts."""
    metrics_every: int | None = None
    """Rollouts between two rows of the table; None: about 25 rows per replica."""
    sampled_metrics: bool = False
    """Whether ratios, clip shares and gradient norms are recorded beside the exact metrics; about doubles the time."""

    def __post_init__(self) -> None:
        # Settings that no cell has are not held against it: those of the cells are checked below.
        self.check_machine()
        for name in _WHOLE:
            _check_name(name, getattr(self, name))
        for item in fields(Settings):
            given = getattr(self, item.name)
            if given is not None and not isinstance(given, bool | int | float | str):
                raise ConfigError(f"{item.name} is {shown(given)}; a sweep takes one value, or an axis {item.name}=…")
        axes = _axes(self.vary)
        object.__setattr__(self, "vary", axes)
        check_whole("seeds", self.seeds, 1)
        check_whole("steps", self.steps, 1)
        check_whole("seed", self.seed, 0, 2**64 - 1)
        for name in ("samples", "chunk", "metrics_every"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        names = [axis.name for axis in axes]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{name} is varied twice; put all its values into one --vary")
        ranges = [axis.name for axis in axes if isinstance(axis, Range)]
        if ranges and self.samples is None:
            raise ConfigError(
                f"{', '.join(ranges)} is varied over a range without a number of points; add one "
                f"({ranges[0]}=low:high:count), or ask for Sobol points with samples"
            )
        if self.samples is not None and not ranges:
            raise ConfigError(f"samples is {self.samples}, but no axis is a range; write one as name=low:high")
        counted = [
            _whole_numbers(axis) if isinstance(axis, Axis) and self._counts(axis.name) else axis for axis in axes
        ]
        object.__setattr__(self, "vary", tuple(counted))
        self._check_values()

    # -- what is asked for -----------------------------------------------------------------------------------

    @property
    def axes(self) -> tuple[Axis | Range, ...]:
        """The axes, read."""
        return tuple(axis for axis in self.vary if not isinstance(axis, str))

    @property
    def cell_count(self) -> int:
        """Number of cells, without listing them."""
        return math.prod(len(axis.values) for axis in self.axes if isinstance(axis, Axis)) * (self.samples or 1)

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        """Every cell's values by axis; the first axis varies slowest, Sobol points after all grids."""
        ranges = [axis for axis in self.axes if isinstance(axis, Range)]
        grids = [[{axis.name: value} for value in axis.values] for axis in self.axes if isinstance(axis, Axis)]
        points = sobol(ranges, self.samples or 1, self.seed) if ranges else [{}]
        cells = []
        for combination in itertools.product(*grids, points):
            merged = {name: value for item in combination for name, value in item.items()}
            cells.append({axis.name: merged[axis.name] for axis in self.axes})
        return cells

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything that decides a number, as plain data; equal configurations give equal tables."""
        shown = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "vary"}
        shown["objective"] = self.objective.label() if isinstance(self.objective, Objective) else self.objective
        shown["metrics_every"] = self.record_every
        shown["vary"] = [
            {"name": axis.name, "values": list(axis.values)}
            if isinstance(axis, Axis)
            else {"name": axis.name, "low": axis.low, "high": axis.high, "logarithmic": axis.logarithmic}
            for axis in self.axes
        ]
        shown["versions"] = environment_facts()
        return shown

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration, 64 hexadecimal digits."""
        return digest_of(self.configuration)

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> Sweep:
        """Read a sweep from a YAML file whose keys are the fields.

        `vary` is a list of axes as on the command line, or a mapping from name to a list of values, to
        `{low, high, points}` or to `{low, high}`, each with an optional `log: true`.

        Args:
            path: the file.
            overrides: fields that replace those of the file.

        Raises:
            ConfigError: the file is no mapping, or a key or an axis cannot be read.
            UnknownNameError: a key that is no field.
        """
        written = read_yaml(path)
        if not isinstance(written, dict):
            raise ConfigError(f"{path} holds {shown(written)}; expected a mapping of a sweep's fields")
        arguments = {**written, **overrides}
        cls._check_names(arguments)
        _check_name("objective", arguments["objective"])
        if isinstance(arguments.get("vary"), Mapping):
            arguments["vary"] = [_axis_from_yaml(name, given) for name, given in arguments["vary"].items()]
        return read_settings(cls, arguments, str(path))

    @classmethod
    def _check_names(cls, written: Mapping[str, Any]) -> None:
        super()._check_names(written)
        missing = [item.name for item in fields(cls) if item.default is MISSING and item.name not in written]
        if missing:
            raise ConfigError(f"the sweep has no {missing[0]}; every sweep needs an objective and an env")

    # -- what it takes ---------------------------------------------------------------------------------------

    def estimate(self) -> Estimate:
        """Memory and size, without listing the cells."""
        largest = max(replica_elements(spec, group_size) for spec, group_size in self._shapes())
        replicas = self.cell_count * self.seeds
        steps = [int(value) for value in self._values_of("steps")]
        return Estimate(
            replicas=replicas,
            records=max(-(-step // self.record_every) for step in steps) + 1,
            labels=len(self.axes),
            sampled_metrics=self.sampled_metrics,
            chunk=min(self.chunk or block_size(largest, self.device), replicas),
            elements=largest,
        )

    def check_memory(self, *, jobs: int = 1, limit: int | None = None, table: bool = True) -> Estimate:
        """The estimate, if it fits.

        Args:
            jobs: worker processes.
            limit: bytes that may be used; `None`: four fifths of what the machine has free.
            table: whether this process will hold the whole table.

        Raises:
            ConfigError: it does not fit; the message says what does.
        """
        need, processes = self.estimate(), max(1, jobs)
        allowed = limit if limit is not None else int(0.8 * available_memory())
        working = processes * (_PROCESS_BYTES + need.training_bytes) + self.cell_count * _CELL_BYTES
        total = working + (need.table_bytes if table else 0)
        if total <= allowed:
            return need
        opening = (
            f"the sweep has {self.cell_count:,} cells × {self.seeds} seeds = {need.replicas:,} replicas and needs "
            f"about {memory_text(total)} of memory; {memory_text(allowed)} may be used. "
        )
        room = allowed - working
        if 2 * self.cell_count * _CELL_BYTES > allowed:
            raise ConfigError(f"{opening}Sweep at most about {allowed // (4 * _CELL_BYTES):,} cells at a time")
        if room <= 0:
            fitting = (allowed // processes - _PROCESS_BYTES) // need.replica_bytes
            advice = (
                f"Train at most {fitting} replicas at once in each of {jobs} processes (chunk={fitting})"
                if fitting >= 1
                else "Not even one replica per process fits: use fewer jobs, or a smaller environment or group_size"
            )
            raise ConfigError(opening + advice)
        thinner = self.record_every * -(-need.table_bytes // room)
        cells = max(1, self.cell_count * room // need.table_bytes)
        raise ConfigError(
            f"{opening}Its table has {need.rows:,} rows: raise metrics_every from {self.record_every} to about "
            f"{thinner}, or sweep chunks of at most {cells:,} cells, each into a folder of its own"
        )

    # -- how it is cut ---------------------------------------------------------------------------------------

    @property
    def record_every(self) -> int:
        """Rollouts between two rows, in every cell."""
        return self.metrics_every or max(1, max(int(value) for value in self._values_of("steps")) // MOST_RECORDS)

    def blocks(self) -> Iterator[Block]:
        """The blocks, in order; the same ones on every call."""
        number = 0
        for members in self._groups():
            first = members[0]
            size = self.chunk or block_size(
                replica_elements(first.environment.automaton(), first.setup.settings["group_size"]), self.device
            )
            # Seeds vary slowest: a block mostly shares one seed, whose random numbers are then drawn once for it.
            total = len(members) * self.seeds
            for start in range(0, total, size):
                replicas = [divmod(index, len(members)) for index in range(start, min(start + size, total))]
                chosen = [members[index] for _, index in replicas]
                yield self._block(number, chosen, tuple(seed for seed, _ in replicas))
                number += 1

    @cached_property
    def block_count(self) -> int:
        """Number of blocks."""
        return sum(1 for _ in self.blocks())

    def _block(self, number: int, members: Sequence[_Member], seeds: tuple[int, ...]) -> Block:
        setup = members[0].setup
        values = {name: [float(member.per_replica[name]) for member in members] for name in members[0].per_replica}
        tensors = {name: torch.tensor(column, dtype=self.torch_dtype) for name, column in values.items()}
        rates = tensors.pop("learning_rate", None)
        hyper = {name: column.view(-1, 1, 1) for name, column in tensors.items()}
        axes = {axis.name: [self.cells[member.cell][axis.name] for member in members] for axis in self.axes}
        return Block(
            number=number,
            objective=setup.objective_with(hyper),
            environments=tuple(member.environment for member in members),
            model=setup.model,
            initial=None,
            settings=Settings(**setup.settings | ({} if rates is None else {"learning_rate": rates})),
            seeds=seeds,
            master_seed=self.seed,
            labels={"cell": [member.cell for member in members], **axes},
        )

    def _groups(self) -> list[list[_Member]]:
        """Cells that can share a batch."""
        groups: dict[str, list[_Member]] = {}
        shapes: list[Automaton] = []
        known: dict[Environment, tuple[Environment, int]] = {}
        for cell, values in enumerate(self.cells):
            member = self._resolved(cell, values)
            found = member.environment
            if found not in known:
                known[found] = found, _shape_of(found.automaton(), shapes)
            # Equal environments are one object, whose transitions are then unfolded once.
            shared, shape = known[found]
            groups.setdefault(f"{member.setup} {shape}", []).append(replace(member, environment=shared))
        return list(groups.values())

    def _resolved(self, cell: int, values: Mapping[str, Any]) -> _Member:
        """What a cell shares with others, and what it has to itself."""
        whole: dict[str, Any] = {name: values.get(name, getattr(self, name)) for name in _WHOLE}
        settings = {item.name: getattr(self, item.name) for item in fields(Settings)}
        settings["metrics_every"] = self.record_every
        hyper: dict[str, Any] = {}
        per_replica: dict[str, float] = {}
        parameters: dict[str, Any] = {}
        for name, value in values.items():
            kind, bare = self._kinds[name]
            if kind == "setting":
                settings[bare] = value
            elif kind == "environment":
                parameters[bare] = value
            elif kind == "objective":
                hyper[bare] = value
        for name in [name for name, value in hyper.items() if name in self._tensors and value is not None]:
            per_replica[name] = hyper.pop(name)
        if "learning_rate" in values:
            per_replica["learning_rate"] = settings.pop("learning_rate")
        setup = _Setup(whole["objective"], hyper, whole["env"], whole["model"], settings)
        return _Member(cell, setup, per_replica, make_environment(whole["env"], **parameters))

    # -- names -----------------------------------------------------------------------------------------------

    def _values_of(self, name: str) -> tuple[Any, ...]:
        for axis in self.axes:
            if axis.name == name and isinstance(axis, Axis):
                return axis.values
        return (getattr(self, name),)

    @cached_property
    def _objectives(self) -> list[Objective]:
        return [make_objective(value) for value in self._values_of("objective")]

    @cached_property
    def _environments(self) -> list[str]:
        return [str(value) for value in self._values_of("env")]

    @cached_property
    def _tensors(self) -> frozenset[str]:
        """Hyper-parameters that every objective takes as a tensor."""
        return frozenset.intersection(*(frozenset(_hyper_parameters(item, tensors=True)) for item in self._objectives))

    @cached_property
    def _kinds(self) -> dict[str, tuple[str, str]]:
        """Each axis' name to where it belongs and its name there."""
        hyper = frozenset.intersection(*(frozenset(_hyper_parameters(item)) for item in self._objectives))
        owned = {
            "whole": frozenset(_WHOLE),
            "setting": frozenset(_SETTINGS),
            "objective": hyper,
            "environment": frozenset.intersection(
                *(frozenset(_environment_fields(name)) for name in self._environments)
            ),
        }
        kinds = {}
        for axis in self.axes:
            prefix, dot, bare = axis.name.rpartition(".")
            if dot and prefix not in ("objective", "env"):
                raise UnknownNameError("prefix of an axis", prefix, ["objective", "env"])
            wanted = {"objective": ["objective"], "env": ["environment"]}.get(prefix, list(owned))
            found = [kind for kind in wanted if bare in owned[kind]]
            if not found:
                self._explain(axis.name, bare, wanted)
                raise UnknownNameError(
                    "parameter to vary", axis.name, sorted({name for kind in wanted for name in owned[kind]})
                )
            if len(found) > 1:
                raise ConfigError(
                    f"{axis.name} is a parameter of the {' and of the '.join(found)}; write objective.{bare} or "
                    f"env.{bare}"
                )
            kinds[axis.name] = (found[0], bare)
        return kinds

    def _explain(self, name: str, bare: str, wanted: Sequence[str]) -> None:
        """Raise if a name that cannot be varied is not merely unknown.

        Raises:
            ConfigError: an environment's id gives the parameter a value, or some of the objectives or environments lack
                it.
        """
        if "environment" in wanted:
            for env in self._environments:
                stem, written = parse_call(env)
                if bare in written:
                    rest = format_call(stem, {key: value for key, value in written.items() if key != bare})
                    raise ConfigError(
                        f"{name} is varied, but {env} fixes it at {written[bare]}; to vary it, leave it out there: "
                        f"env {rest}"
                    )
        for kind, label, known in (
            ("objective", "objective", {item.label(): set(_hyper_parameters(item)) for item in self._objectives}),
            ("environment", "env", {env: set(_environment_fields(env)) for env in self._environments}),
        ):
            lacking = [item for item, names in known.items() if bare not in names]
            if kind in wanted and 0 < len(lacking) < len(known):
                raise ConfigError(
                    f"{name} is varied, but {' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no "
                    f"parameter {bare}; vary it in a sweep of its own, over {label}="
                    f"{','.join(item for item in known if item not in lacking)}"
                )

    def _counts(self, name: str) -> bool:
        """Whether an axis takes whole numbers."""
        kind, bare = self._kinds[name]
        if kind == "environment":
            return all(_environment_fields(env)[bare].metadata["kind"] == "whole" for env in self._environments)
        return kind == "setting" and next(item for item in fields(Settings) if item.name == bare).type == "int"

    def _check_values(self) -> None:
        """Try every value of every axis on its own, so that a bad one is found before the first draw."""
        first = {axis.name: axis.values[0] if isinstance(axis, Axis) else axis.low for axis in self.axes}
        tried: list[dict[str, Any]] = [first]
        for axis in self.axes:
            ends = axis.values if isinstance(axis, Axis) else (axis.low, axis.high)
            tried += [{**first, axis.name: value} for value in ends[:_TRIED]]
            for value in ends[_TRIED:]:
                if type(value) is not type(ends[0]):
                    raise ConfigError(
                        f"{axis.name} is varied over {shortened(ends)}, with {shown(value)} among them; give values of "
                        "one kind"
                    )
        made: set[tuple[str, Environment]] = set()
        for values in tried:
            member = self._resolved(0, values)
            hyper = dict(member.per_replica)
            settings = member.setup.settings
            if "learning_rate" in hyper:
                settings = {**settings, "learning_rate": hyper.pop("learning_rate")}
            objective = member.setup.objective_with(hyper)
            Settings(**settings).resolve_advantage(objective.advantage)
            if (member.setup.model, member.environment) not in made:
                made.add((member.setup.model, member.environment))
                make_policy(member.setup.model, member.environment.automaton().initial_logits.unsqueeze(0).float())

    def _shapes(self) -> Iterator[tuple[Automaton, int]]:
        """Environments and group sizes that may occur, each axis tried on its own."""
        base: dict[str, Any] = {axis.name: axis.values[0] if isinstance(axis, Axis) else axis.low for axis in self.axes}
        relevant = [
            axis
            for axis in self.axes
            if isinstance(axis, Axis)
            and (self._kinds[axis.name][0] == "environment" or axis.name in ("env", "group_size"))
        ]
        for values in [base, *({**base, axis.name: value} for axis in relevant for value in axis.values)]:
            member = self._resolved(0, values)
            yield member.environment.automaton(), member.setup.settings["group_size"]


@dataclass(frozen=True)
class _Setup:
    """What the replicas of a block have in common; cells that differ in any of it run one after the other."""

    objective: str | Objective
    hyper_parameters: dict[str, Any]
    env: str
    model: str
    settings: dict[str, Any]

    def objective_with(self, values: Mapping[str, Any]) -> Objective:
        """The objective with the common hyper-parameters and these."""
        return _with_hyper_parameters(make_objective(self.objective), {**self.hyper_parameters, **values})


@dataclass(frozen=True)
class _Member:
    """A cell: its number, what it shares, its tensor hyper-parameters and learning rate, and its environment."""

    cell: int
    setup: _Setup
    per_replica: dict[str, float]
    environment: Environment


def _with_hyper_parameters(objective: Objective, values: Mapping[str, Any]) -> Objective:
    """The objective with other hyper-parameters; one that a wrapper does not have is looked for in its base."""
    own = {item.name for item in fields(objective)}
    mine = {name: value for name, value in values.items() if name in own}
    rest = {name: value for name, value in values.items() if name not in own}
    if rest:
        base = getattr(objective, "base", None)
        assert isinstance(base, Objective), "the names of axes are checked before"
        mine["base"] = _with_hyper_parameters(base, rest)
    return replace(objective, **mine) if mine else objective


def _shape_of(spec: Automaton, shapes: list[Automaton]) -> int:
    """Which of `shapes` can share a batch with `spec`, its tables apart; `spec` joins them if none can."""
    for number, other in enumerate(shapes):
        if (
            torch.equal(spec.transitions, other.transitions)
            and torch.equal(spec.initial_states, other.initial_states)
            and (spec.reward_kind, spec.reward_scale) == (other.reward_kind, other.reward_scale)
        ):
            return number
    shapes.append(spec)
    return len(shapes) - 1


def _hyper_parameters(objective: Objective, *, tensors: bool = False) -> Iterator[str]:
    """Names of an objective's hyper-parameters and of those it wraps; `tensors`: of those that may be tensors."""
    for item in fields(objective):
        if not tensors or "Hyper" in str(item.type):
            yield item.name
    base = getattr(objective, "base", None)
    if isinstance(base, Objective):
        yield from _hyper_parameters(base, tensors=tensors)


def _environment_fields(env: str) -> dict[str, Field[Any]]:
    """The parameters an environment's id leaves open."""
    _, written = parse_call(env)
    return {item.name: item for item in fields(make_environment(env)) if item.name not in written}


def _whole_numbers(axis: Axis) -> Axis:
    """Grid points such as 2.0 as 2, for an axis that counts something."""
    if not all(isinstance(value, int | float) and float(value).is_integer() for value in axis.values):
        raise ConfigError(
            f"{axis.name} is varied over {shortened(axis.values)}; it takes whole numbers. Choose a grid that has "
            "them, or a list"
        )
    return Axis(axis.name, tuple(int(value) for value in axis.values))


def _check_name(field: str, given: object) -> None:
    if not isinstance(given, str) and not (field == "objective" and isinstance(given, Objective)):
        raise ConfigError(f"{field} is {shown(given)}; expected a name, or name(key=value,…)")


def _axes(written: Any) -> tuple[Axis | Range, ...]:
    """Axes from what somebody wrote: one, or a list of them."""
    items = [written] if isinstance(written, str | Axis | Range) else written
    if not isinstance(items, Sequence) or not all(isinstance(item, str | Axis | Range) for item in items):
        raise ConfigError(f"vary is {shown(written)}; expected axes, such as ['clip_low=0.1,0.2', 'epochs=2,4']")
    return tuple(parse_axis(item) if isinstance(item, str) else item for item in items)


def _axis_from_yaml(name: str, given: Any) -> Axis | Range:
    if isinstance(given, str):
        return parse_axis(f"{name}={given}")
    if isinstance(given, Mapping):
        unknown = set(given) - {"low", "high", "points", "log"}
        if unknown or not {"low", "high"} <= set(given) or not isinstance(given.get("log", False), bool):
            raise ConfigError(f"axis {name} is {shown(given)}; expected low, high, and perhaps points and log")
        suffix = (f":{given['points']}" if "points" in given else "") + (":log" if given.get("log") else "")
        return parse_axis(f"{name}={given['low']}:{given['high']}{suffix}")
    return Axis(name, tuple(given if isinstance(given, Sequence) else [given]))
