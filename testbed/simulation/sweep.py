"""`Sweep`: which cells, which seeds, and how they are laid out as blocks of replicas."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from envs import make_spec
from envs.automaton import Automaton
from envs.catalogue import ENVIRONMENTS
from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives import Objective, make_objective
from testbed.registry import format_call, parse_call
from testbed.simulation.axes import Axis, Range, parse_axis, shortened, sobol
from testbed.simulation.blocks import (
    Block,
    Setup,
    check_device,
    chunk_elements,
    per_replica_elements,
    with_hyper_parameters,
)
from testbed.simulation.run import environment_facts
from testbed.simulation.settings import Settings, check_whole
from testbed.simulation.storage import digest_of

__all__ = ["Estimate", "Sweep"]

_WHOLE = ("objective", "env", "model")
_SETTINGS = tuple(item.name for item in fields(Settings) if item.name != "metrics_every")
_RECORDS = 25
# Columns a table has beside the axes: the exact metrics with the bookkeeping, and the sampled ones on top.
_EXACT_COLUMNS, _SAMPLED_COLUMNS = 14, 34
# The table is held while it is put together, sorted and encoded.
_TABLE_COPIES = 3
# An interpreter with torch loaded, and bytes per entry of a replica's tables: parameters, softmax, distribution
# function, the environment's tables and the temporaries of the exact metrics, most of them float64.
_PROCESS_BYTES, _BYTES_PER_ELEMENT = 400 << 20, 160


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take, before it starts."""

    replicas: int
    """Cells times seeds."""
    rows: int
    """Rows of the table."""
    columns: int
    """Columns of the table, about."""
    chunk: int
    """Replicas trained at once by a process, at most."""
    table_bytes: int
    """Memory for the table while it is put together."""
    process_bytes: int
    """Memory of the worker processes."""

    @property
    def total_bytes(self) -> int:
        """Peak memory."""
        return self.table_bytes + self.process_bytes


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid, list or sample of settings, each with the same seeds.

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

    objective: str | Objective
    """A name, `name(key=value,…)` or an objective."""
    env: str
    """An environment's id, or `id(key=value,…)`."""
    vary: Sequence[str | Axis | Range] = ()
    """The axes, in the notation of `testbed.simulation.axes`; the first one varies slowest. A name may be that of a
    hyper-parameter, a parameter of the environment, a setting below, or `objective`, `env` and `model` themselves;
    `objective.name` and `env.name` tell equal names apart."""
    samples: int | None = None
    """Sobol points spread over the axes that are ranges; None: there are no ranges."""
    seeds: int = 32
    """Replicas per cell."""
    seed: int = 0
    """Master seed."""
    model: str = "tabular"
    """A registered policy."""
    steps: int = 100
    """This and the following: see `testbed.simulation.Settings`."""
    group_size: int = 16
    epochs: int = 4
    minibatches: int = 1
    learning_rate: float = 1.0
    optimizer: str = "sgd"
    max_grad_norm: float | None = None
    advantage: str | None = None
    staleness: int = 0
    mismatch: float | str | None = None
    partial: int | None = None
    metrics_every: int | None = None
    """Rollouts between two rows of the table; None: about 25 rows per replica."""
    sampled_metrics: bool = False
    """Whether ratios, clip shares and gradient norms are recorded beside the exact metrics; about doubles the time."""
    chunk: int | None = None
    """Replicas trained at once; None: as many as stay in a core's cache."""
    device: str = "cpu"
    """Where policies are trained, such as `cuda`; random numbers are the same everywhere, rounding is not."""
    compile: bool = False
    """Whether a rollout and its updates are compiled programs, see `simulate`."""

    def __post_init__(self) -> None:
        axes = tuple(parse_axis(item) if isinstance(item, str) else item for item in self.vary)
        object.__setattr__(self, "vary", axes)
        check_whole("seeds", self.seeds, 1)
        check_whole("seed", self.seed, 0)
        for name in ("samples", "chunk", "metrics_every"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        check_device(self.device)
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
        shown["metrics_every"] = self._metrics_every
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
        try:
            written = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}; give the path of a YAML file") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is no valid YAML: {error}") from error
        if not isinstance(written, dict):
            raise ConfigError(f"{path} holds {type(written).__name__}; expected a mapping of a sweep's fields")
        arguments = {**written, **overrides}
        if isinstance(arguments.get("vary"), Mapping):
            arguments["vary"] = [_axis_from_yaml(name, given) for name, given in arguments["vary"].items()]
        return cls.of(**arguments)

    @classmethod
    def of(cls, **written: Any) -> Sweep:
        """A sweep from fields whose names somebody typed.

        Raises:
            UnknownNameError: a name that is no field; the message has the nearest one.
            ConfigError: as the constructor, and without an objective or an env.
        """
        known = [item.name for item in fields(cls)]
        for key in written:
            if key not in known:
                raise UnknownNameError("field of a sweep", str(key), known)
        for item in fields(cls):
            if item.default is MISSING and item.name not in written:
                raise ConfigError(f"the sweep has no {item.name}; every sweep needs an objective and an env")
        return cls(**written)

    # -- what it takes ---------------------------------------------------------------------------------------

    def estimate(self, jobs: int = 1) -> Estimate:
        """Memory and size, without listing the cells.

        Args:
            jobs: worker processes.
        """
        largest = max((per_replica_elements(spec, group) for spec, group in self._shapes()), default=1)
        chunk = self.chunk or max(1, chunk_elements(self.device) // largest)
        replicas = self.cell_count * self.seeds
        steps = [int(value) for value in self._values_of("steps")]
        records = max(-(-step // self._metrics_every) for step in steps) + 1
        columns = len(self.axes) + _EXACT_COLUMNS + (_SAMPLED_COLUMNS if self.sampled_metrics else 0)
        return Estimate(
            replicas=replicas,
            rows=replicas * records,
            columns=columns,
            chunk=min(chunk, replicas),
            table_bytes=_TABLE_COPIES * 8 * replicas * records * columns,
            process_bytes=max(1, jobs) * (_PROCESS_BYTES + min(chunk, replicas) * largest * _BYTES_PER_ELEMENT),
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
        need = self.estimate(jobs)
        allowed = limit if limit is not None else int(0.8 * available_memory())
        total = need.total_bytes if table else need.process_bytes
        if total <= allowed:
            return need
        room = allowed - need.process_bytes
        opening = (
            f"the sweep has {self.cell_count:,} cells × {self.seeds} seeds = {need.replicas:,} replicas and needs "
            f"about {_size(total)} of memory; {_size(allowed)} may be used. "
        )
        if room <= 0:
            per_replica = (need.process_bytes / max(1, jobs) - _PROCESS_BYTES) / need.chunk
            fitting = int((allowed / max(1, jobs) - _PROCESS_BYTES) / per_replica)
            advice = (
                f"Train at most {fitting} replicas at once in each of {jobs} processes (chunk={fitting})"
                if fitting >= 1
                else "Not even one replica per process fits: use fewer jobs, or a smaller environment or group_size"
            )
            raise ConfigError(opening + advice)
        if not table:
            return need
        thinner = self._metrics_every * math.ceil(need.table_bytes / room)
        cells = max(1, int(self.cell_count * room / need.table_bytes))
        raise ConfigError(
            f"{opening}Its table has {need.rows:,} rows: raise metrics_every from {self._metrics_every} to about "
            f"{thinner}, or sweep chunks of at most {cells:,} cells, each into a folder of its own"
        )

    # -- how it is cut ---------------------------------------------------------------------------------------

    @cached_property
    def _metrics_every(self) -> int:
        return self.metrics_every or max(1, max(int(value) for value in self._values_of("steps")) // _RECORDS)

    def blocks(self) -> Iterator[Block]:
        """The blocks, in order; the same ones on every call."""
        number = 0
        for setup, members in self._groups():
            spec = make_spec(setup.env, **members[0][2])
            elements = per_replica_elements(spec, setup.settings["group_size"])
            size = self.chunk or max(1, chunk_elements(self.device) // elements)
            # Seeds vary slowest: a block mostly shares one seed, whose random numbers are then drawn once for it.
            total = len(members) * self.seeds
            for start in range(0, total, size):
                replicas = [divmod(index, len(members)) for index in range(start, min(start + size, total))]
                yield self._block(number, setup, members, replicas)
                number += 1

    @cached_property
    def block_count(self) -> int:
        """Number of blocks."""
        return sum(1 for _ in self.blocks())

    def _block(
        self, number: int, setup: Setup, members: Sequence[_Member], replicas: Sequence[tuple[int, int]]
    ) -> Block:
        chosen = [members[index] for _, index in replicas]
        names = list(chosen[0][1])
        tensors = {name: tuple(float(hyper[name]) for _, hyper, _ in chosen) for name in names}
        rates = tensors.pop("learning_rate", None)
        return Block(
            number=number,
            setup=setup,
            cells=tuple(cell for cell, _, _ in chosen),
            seeds=tuple(seed for seed, _ in replicas),
            master_seed=self.seed,
            hyper_parameters=tensors,
            learning_rates=rates,
            environment_parameters=tuple(parameters for _, _, parameters in chosen),
            columns={axis.name: tuple(self.cells[cell][axis.name] for cell, _, _ in chosen) for axis in self.axes},
        )

    def _groups(self) -> list[tuple[Setup, list[_Member]]]:
        """Cells that can share a batch, with what they share."""
        groups: dict[str, tuple[Setup, list[_Member]]] = {}
        shapes: list[Automaton] = []
        known: dict[str, int] = {}
        for cell, values in enumerate(self.cells):
            setup, per_replica, parameters = self._resolved(values)
            key = repr((setup.env, sorted(parameters.items())))
            if key not in known:
                known[key] = _shape_of(make_spec(setup.env, **parameters), shapes)
            shared = repr((str(setup.objective), setup.hyper_parameters, setup.env, setup.model, setup.settings))
            groups.setdefault(f"{shared} {known[key]}", (setup, []))[1].append((cell, per_replica, parameters))
        return list(groups.values())

    def _resolved(self, values: Mapping[str, Any]) -> tuple[Setup, dict[str, float], dict[str, Any]]:
        """What a cell shares with others, its tensor hyper-parameters, and its environment parameters."""
        whole: dict[str, Any] = {name: values.get(name, getattr(self, name)) for name in _WHOLE}
        settings = {name: getattr(self, name) for name in _SETTINGS} | {"metrics_every": self._metrics_every}
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
        setup = Setup(
            objective=whole["objective"],
            hyper_parameters=hyper,
            env=whole["env"],
            model=whole["model"],
            settings=settings,
            sampled_metrics=self.sampled_metrics,
            device=self.device,
            compile=self.compile,
        )
        return setup, per_replica, parameters

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
            tried += [{**first, axis.name: value} for value in ends[:1000]]
        for values in tried:
            setup, per_replica, parameters = self._resolved(values)
            rate = per_replica.get("learning_rate", setup.settings.get("learning_rate"))
            loop = Settings(**{**setup.settings, "learning_rate": rate})
            hyper = {name: value for name, value in per_replica.items() if name != "learning_rate"}
            objective = with_hyper_parameters(make_objective(setup.objective), {**setup.hyper_parameters, **hyper})
            loop.resolve_advantage(objective.advantage)
            make_spec(setup.env, **parameters)

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
            setup, _, parameters = self._resolved(values)
            yield make_spec(setup.env, **parameters), setup.settings["group_size"]


_Member = tuple[int, dict[str, float], dict[str, Any]]
"""A cell's number, its tensor hyper-parameters and its environment parameters."""


def available_memory() -> int:
    """Bytes this process may still take: the machine's free memory, or what its control group leaves."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


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
    return {item.name: item for item in fields(ENVIRONMENTS[make_spec(env).name]) if item.name not in written}


def _whole_numbers(axis: Axis) -> Axis:
    """Grid points such as 2.0 as 2, for an axis that counts something."""
    if not all(isinstance(value, int | float) and float(value).is_integer() for value in axis.values):
        raise ConfigError(
            f"{axis.name} is varied over {shortened(axis.values)}; it takes whole numbers. Choose a grid that has "
            "them, or a list"
        )
    return Axis(axis.name, tuple(int(value) for value in axis.values))


def _axis_from_yaml(name: str, given: Any) -> Axis | Range:
    if isinstance(given, str):
        return parse_axis(f"{name}={given}")
    if isinstance(given, Mapping):
        unknown = set(given) - {"low", "high", "points", "log"}
        if unknown or not {"low", "high"} <= set(given):
            raise ConfigError(f"axis {name} is {dict(given)}; expected low, high, and perhaps points and log")
        suffix = (f":{given['points']}" if "points" in given else "") + (":log" if given.get("log") else "")
        return parse_axis(f"{name}={given['low']}:{given['high']}{suffix}")
    return Axis(name, tuple(given if isinstance(given, Sequence) else [given]))


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
