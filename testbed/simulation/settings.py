"""What a training run on a toy is made of, validated before the first number is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from torch import Tensor

from models.mismatch import make_mismatch
from testbed.advantages import check_group_size, make_advantage_estimator
from testbed.errors import ConfigError
from testbed.simulation.optimisers import optimisers

__all__ = ["Settings", "check_whole"]


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what does not count something.

    Raises:
        ConfigError: the value is no whole number, or less than the least.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}; expected a whole number of at least {least}")


def _check_positive(name: str, value: object, expected: str, *, finite: bool) -> None:
    if isinstance(value, Tensor):
        outside = ~((value > 0) & (value.isfinite() | (not finite))).flatten()
        if outside.any():
            first = int(outside.nonzero()[0])
            raise ConfigError(f"{name}[{first}] is {value.flatten()[first].item()!r}; expected {expected}")
    elif (
        isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0 or (finite and math.isinf(value))
    ):
        raise ConfigError(f"{name} is {value!r}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The training loop's settings, the same for every replica except where a tensor gives one value each.

    Raises:
        ConfigError: a setting is out of range or two contradict each other.
        UnknownNameError: an optimiser or advantage that does not exist.
    """

    steps: int = 300
    """Rollouts."""
    group_size: int = 16
    """G: responses per prompt and rollout."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 1
    """Parts each pass is split into; every part holds group_size/minibatches responses of every prompt."""
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
    metrics_every: int = 1
    """Rollouts between two rows of the table; the run itself does not change."""

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("group_size", 1),
            ("epochs", 1),
            ("minibatches", 1),
            ("staleness", 0),
            ("metrics_every", 1),
        ):
            check_whole(name, getattr(self, name), least)
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

    @property
    def updates_per_step(self) -> int:
        """Optimiser updates per rollout."""
        return self.epochs * self.minibatches

    def resolve_advantage(self, own: str) -> str:
        """The estimator in use, given the objective's own; checks that the group is large enough for it."""
        text = own if self.advantage is None else self.advantage
        check_group_size(text, self.group_size)
        return text
