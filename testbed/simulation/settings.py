"""What a training run on a toy is made of, validated before the first number is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from models.mismatch import make_mismatch
from testbed.advantages import check_group_size, make_advantage_estimator
from testbed.errors import ConfigError, UnknownNameError, shown
from testbed.simulation.devices import check_device
from testbed.simulation.optimisers import optimisers

__all__ = ["MOST_RECORDS", "Settings", "check_whole"]

MOST_RECORDS = 25
"""Rows of a replica where nobody says how many."""
_MOST = 10**12
"""More than this of anything is a slip."""
_LARGEST_TRIED = 4096
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_whole(name: str, value: object, least: int, most: int = _MOST) -> None:
    """Refuse what does not count something.

    Raises:
        ConfigError: the value is no whole number, less than the least, or beyond reason.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {shown(value)}; expected a whole number of at least {least}")
    if value > most:
        raise ConfigError(f"{name} is {shown(value)}; expected a whole number of at most {most:,}")


def _check_rates(name: str, rates: Tensor) -> None:
    outside = ~((rates > 0) & rates.isfinite()).flatten()
    if outside.any():
        first = int(outside.nonzero()[0])
        raise ConfigError(
            f"{name}[{first}] is {rates.flatten()[first].item()!r}; expected a positive number that is finite"
        )


def _check_positive(name: str, value: object, expected: str, *, finite: bool) -> None:
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not number > 0 or (finite and math.isinf(number)):
        raise ConfigError(f"{name} is {shown(value)}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything about a run but its objective, environment, initial policy and seeds.

    The same for every replica, except where a tensor gives one value each. The options of the command line are made
    from these fields and the lines below them.

    Raises:
        ConfigError: a setting is out of range or two contradict each other.
        UnknownNameError: an optimiser or advantage that does not exist.
    """

    KIND: ClassVar[str] = "setting"

    steps: int = 300
    """Rollouts."""
    group_size: int = 16
    """G: responses per prompt and rollout."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 1
    """Mini-batches of a pass; each holds group_size/minibatches responses of every prompt."""
    learning_rate: float | Tensor = 1.0
    """Step size in units of the parameters; a tensor `(R,)` gives each replica its own."""
    optimizer: str = "sgd"
    """`sgd` or `adam`."""
    max_grad_norm: float | None = None
    """Gradient norm above which a replica's gradient is scaled down; None: never."""
    advantage: str | None = None
    """Advantage estimator, a name or `name(key=value,…)`; None: the objective's own."""
    staleness: int = 0
    """L: a rollout is drawn by the policy of L rollouts ago, whose log-probabilities are the ratio's denominator."""
    mismatch: float | str | None = None
    """How the sampler differs from the trainer, whose own recomputation stays the ratio's denominator: `bf16`,
    `noise(scale=…)`, `router(scale=…)` or `stale(iterations=…)`, see `models.mismatch`; a number is the scale of
    `noise`, in nats. None: the sampler is exact."""
    partial: int | None = None
    """Tokens of a response that one policy writes before the next rollout's continues it. The ratio's denominator is
    then that of whoever wrote the token. None: whole responses."""
    metrics_every: int | None = 1
    """Rollouts between two rows of the table; the run itself does not change. None: about 25 rows in all."""
    sampled_metrics: bool = True
    """Whether rows also measure the sampled batches (ratios, clip shares, gradient norms), which costs about as much
    as the updates; without, a row has the metrics `exact/…` alone."""
    dtype: str | torch.dtype = "float32"
    """Floating-point type of the policy and the objective, `float32` or `float64`; exact metrics are float64 always."""
    device: str = "cpu"
    """Where policies are trained, such as `cuda`. Random numbers are drawn on the processor, so every device sees the
    same; results differ by the rounding of its sums, which accelerators do not even repeat."""
    compile: bool = False
    """Whether a rollout and all its updates are two programs that `torch.compile` makes, which takes seconds and a C++
    compiler; for tabular policies and objectives with a closed form. It changes rounding as well."""

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("group_size", 1),
            ("epochs", 1),
            ("minibatches", 1),
            ("staleness", 0),
        ):
            check_whole(name, getattr(self, name), least)
        if self.metrics_every is not None:
            check_whole("metrics_every", self.metrics_every, 1)
        if isinstance(self.learning_rate, Tensor):
            _check_rates("learning_rate", self.learning_rate)
        else:
            _check_positive("learning_rate", self.learning_rate, "a positive number that is finite", finite=True)
        if self.max_grad_norm is not None:
            expected = "a positive number, or None to switch it off"
            _check_positive("max_grad_norm", self.max_grad_norm, expected, finite=False)
        if self.mismatch is not None:
            make_mismatch(self.mismatch)
        if self.partial is not None:
            if isinstance(self.partial, bool) or not isinstance(self.partial, int) or self.partial < 1:
                raise ConfigError(
                    f"partial is {self.partial!r}; expected a whole number of tokens, at least 1, or None for whole "
                    "responses"
                )
            if self.mismatch is not None:
                raise ConfigError(
                    f"partial is {self.partial} and mismatch is {self.mismatch!r}; with several writers there is no "
                    "one trainer to recompute the sampler's tokens. Switch one of them off"
                )
        if self.group_size % self.minibatches:
            raise ConfigError(
                f"minibatches is {self.minibatches}, which does not divide group_size {self.group_size}; every "
                "mini-batch takes the same number of responses of each prompt"
            )
        optimisers[self.optimizer]
        if self.advantage is not None:
            make_advantage_estimator(self.advantage)
        self.check_machine()

    def check_machine(self) -> None:
        """Check what says how the work is done, and name the type.

        Raises:
            ConfigError: no such type or device, or something else than a truth value.
        """
        name = str(self.dtype).removeprefix("torch.")
        if name not in _DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}; expected one of {', '.join(_DTYPES)}")
        object.__setattr__(self, "dtype", name)
        for switch in ("sampled_metrics", "compile"):
            if not isinstance(getattr(self, switch), bool):
                raise ConfigError(f"{switch} is {getattr(self, switch)!r}; expected true or false")
        check_device(self.device)

    @classmethod
    def of(cls, **written: Any) -> Self:
        """The same from fields whose names somebody typed.

        Raises:
            UnknownNameError: a name that is no field; the message has the nearest one.
            ConfigError: as the constructor.

        Example:
            >>> Settings.of(steps=3).steps
            3
        """
        cls._check_names(written)
        return cls(**written)

    @classmethod
    def _check_names(cls, written: Mapping[str, Any]) -> None:
        known = [item.name for item in fields(cls)]
        for name in written:
            if name not in known:
                raise UnknownNameError(cls.KIND, str(name), known)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of policy and objective."""
        return _DTYPES[str(self.dtype)]

    @property
    def updates_per_step(self) -> int:
        """Optimiser updates per rollout."""
        return self.epochs * self.minibatches

    @property
    def record_every(self) -> int:
        """Rollouts between two rows."""
        return self.metrics_every or max(1, self.steps // MOST_RECORDS)

    def resolve_advantage(self, own: str) -> str:
        """The estimator in use, given the objective's own; checks that the group is large enough for it."""
        text = own if self.advantage is None else self.advantage
        # It tries a group, which need not be larger than what any estimator asks for.
        check_group_size(text, min(self.group_size, _LARGEST_TRIED))
        return text
