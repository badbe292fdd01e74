"""The environments by name: what one is, how one is filed, and how a name becomes a spec.

An environment is a frozen dataclass in any file of this package, filed by the decorator `environment`. Its fields
are its parameters; `automaton()` turns them into the one specification that everything else is derived from.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import gymnasium
import numpy as np
from torch import Tensor

from envs.automaton import Automaton, RewardKind, Tables, table_generator
from testbed.errors import ConfigError, did_you_mean, shown
from testbed.registry import Registry, parse_call

__all__ = [
    "ENVIRONMENTS",
    "LONGEST_RESPONSE",
    "Environment",
    "choice",
    "env_names",
    "environment",
    "make_spec",
    "real",
    "whole",
]

NAMESPACE = "testbed"
"""What precedes the slash of a Gymnasium id."""


LONGEST_RESPONSE = 1000
"""The most tokens any environment's response may be set to have; Gymnasium is told so as `max_episode_steps`."""


def whole(default: int, *, low: int | None = None, high: int | None = None) -> Any:
    """A parameter that is a whole number in [low, high]."""
    return field(default=default, metadata={"kind": "whole", "low": low, "high": high})


def real(default: float, *, low: float | None = None, high: float | None = None, exclusive: bool = False) -> Any:
    """A parameter that is a finite number in [low, high], or strictly between them."""
    return field(default=default, metadata={"kind": "real", "low": low, "high": high, "exclusive": exclusive})


def choice(default: str, options: tuple[str, ...]) -> Any:
    """A parameter that is one of a few words."""
    return field(default=default, metadata={"kind": "choice", "options": options})


@dataclass(frozen=True, kw_only=True)
class Environment(ABC):
    """One stress for a policy objective; a subclass says which. Fields are parameters, checked on construction.

    A subclass adds conditions that tie several parameters together in its `__post_init__`.

    Raises:
        ConfigError: a parameter has the wrong type or is out of its range; the message names it.
    """

    name: ClassVar[str]
    """Short id, such as `RareArm-v1`; set by `environment`."""
    longest: ClassVar[int] = LONGEST_RESPONSE
    """No parameters make a response longer than so many tokens."""
    small: ClassVar[dict[str, Any]] = {}
    """Parameters of a version with at most a few thousand responses, which the conformance tests enumerate."""

    def __post_init__(self) -> None:
        for parameter in fields(self):
            _check_parameter(self.name, parameter.name, getattr(self, parameter.name), dict(parameter.metadata))

    def __getstate__(self) -> dict[str, Any]:
        # Its parameters alone: what has been made of them is made again where it is needed.
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @abstractmethod
    def automaton(self) -> Automaton:
        """The specification with these parameters; its own tables are those of seed 0."""

    @abstractmethod
    def draw_tables(self, generator: np.random.Generator) -> Tables:
        """Rewards, success and initial policy of one seed."""

    def refuse(self, parameter: str, expected: str) -> ConfigError:
        """The error for a parameter that does not fit the others."""
        return ConfigError(f"{self.name}: {parameter} is {shown(getattr(self, parameter))}; expected {expected}")

    def assemble(
        self,
        transitions: Tensor,
        initial_states: Tensor,
        *,
        reward_kind: RewardKind = "deterministic",
        reward_scale: float = 0.0,
        prompt_texts: tuple[str, ...] = (),
        token_texts: tuple[str, ...] = (),
    ) -> Automaton:
        """An automaton over these transitions with tables from `draw_tables`."""
        # Parameters near the largest float overflow; the automaton says which table they spoil.
        with np.errstate(all="ignore"):
            tables = self.draw_tables(table_generator(0))
        return Automaton(
            name=self.name,
            transitions=transitions,
            initial_states=initial_states,
            rewards=tables.rewards,
            success=tables.success,
            initial_logits=tables.initial_logits,
            reward_kind=reward_kind,
            reward_scale=reward_scale,
            draw_tables=self.draw_tables,
            parameters=asdict(self),
            prompt_texts=prompt_texts,
            token_texts=token_texts,
        )


ENVIRONMENTS: Registry[type[Environment]] = Registry("environment", "envs")
"""Every environment class by short id."""

EnvironmentClass = TypeVar("EnvironmentClass", bound=type[Environment])


def environment(name: str) -> Callable[[EnvironmentClass], EnvironmentClass]:
    """Class decorator: file an environment under its short id, here and as `testbed/<name>` with Gymnasium."""

    def file_under(cls: EnvironmentClass) -> EnvironmentClass:
        cls.name = name
        ENVIRONMENTS.register(name)(cls)
        gymnasium.register(
            id=f"{NAMESPACE}/{name}",
            entry_point="envs.gym:AutomatonEnv",
            vector_entry_point="envs.gym:AutomatonVectorEnv",
            # A bound for wrappers such as TimeAwareObservation; one above the longest response, it never cuts one off.
            max_episode_steps=cls.longest + 1,
            kwargs={"name": name},
        )
        return cls

    return file_under


def env_names() -> list[str]:
    """Short ids of all environments, sorted."""
    return ENVIRONMENTS.names()


def make_environment(name: str, **parameters: Any) -> Environment:
    """An environment with checked parameters, before any table of it is made; arguments and errors of `make_spec`.

    >>> make_environment("rare-arm(arms=10)", contexts=2).arms
    10
    """
    stem, written = parse_call(name)
    cls = ENVIRONMENTS[_resolve(stem)]
    known = [parameter.name for parameter in fields(cls)]
    for key in (*written, *parameters):
        if key not in known:
            hint = did_you_mean(key, known) or "."
            raise ConfigError(f"{cls.name} has no parameter {key!r}{hint} Known: {', '.join(known)}")
        if key in written and key in parameters:
            raise ConfigError(
                f"{cls.name}: {key} is given twice, as {written[key]!r} in the name and as {parameters[key]!r}; "
                "keep one of them"
            )
    return cls(**written, **parameters)


def make_spec(name: str, **parameters: Any) -> Automaton:
    """The specification of an environment.

    Args:
        name: short id (`RareArm-v1`), the same with parameters (`RareArm-v1(arms=10)`), with Gymnasium's
            namespace (`testbed/RareArm-v1`), or loosely written (`rare-arm`: newest version).
        parameters: fields of the environment's class.

    Raises:
        UnknownNameError: no environment has that name; the message offers the nearest.
        ConfigError: a parameter is unknown (the message offers the nearest), given twice, or out of range.

    >>> make_spec("rare-arm(arms=10)", contexts=2).transitions.shape
    torch.Size([2, 10])
    """
    return make_environment(name, **parameters).automaton()


def _resolve(name: str) -> str:
    """The short id meant by a loosely written one; unknown names pass through, for the registry to refuse."""
    name = name.removeprefix(f"{NAMESPACE}/")
    if name in ENVIRONMENTS:
        return name
    matches = [known for known in env_names() if _fold(name) in (_fold(known), _fold(_unversioned(known)))]
    return max(matches, key=_version, default=name)


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _unversioned(name: str) -> str:
    return name.rpartition("-v")[0]


def _version(name: str) -> int:
    return int(name.rpartition("-v")[2])


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # An integer beyond the largest float.
        return False


def _check_parameter(owner: str, name: str, value: object, rule: dict[str, Any]) -> None:
    if rule["kind"] == "choice":
        options = rule["options"]
        if value not in options:
            hint = did_you_mean(value, options)
            raise ConfigError(f"{owner}: {name} is {shown(value)}; expected one of {', '.join(options)}{hint}")
        return
    types: tuple[type, ...] = (int,) if rule["kind"] == "whole" else (int, float)
    expected = "a whole number" if rule["kind"] == "whole" else "a finite number"
    low, high, exclusive = rule["low"], rule["high"], rule.get("exclusive", False)
    if low is not None and high is not None:
        expected += f" strictly between {low} and {high}" if exclusive else f" in {low}..{high}"
    elif low is not None:
        expected += f" above {low}" if exclusive else f" of at least {low}"
    fits = isinstance(value, types) and not isinstance(value, bool) and (rule["kind"] == "whole" or _is_finite(value))
    if fits and low is not None:
        fits = value > low if exclusive else value >= low
    if fits and high is not None:
        fits = value < high if exclusive else value <= high
    if not fits:
        raise ConfigError(f"{owner}: {name} is {shown(value)}; expected {expected}")
