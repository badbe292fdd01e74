"""A plain function of tensors as an objective, for what trains and audits objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective
from testbed.testing.losses import Form, asked_fields, call
from testbed.testing.probes import make_probe

__all__ = ["FunctionObjective"]


@dataclass(frozen=True, kw_only=True)
class FunctionObjective(Objective):
    """A function of anybody's, one loss per token, averaged as `reduction` says.

        ℓ = function(log p, log q, A, mask)

    The function is called once per replica with tensors `(B, T)`; further parameters named like fields of `TokenBatch`
    are given, and `needs` is made of them. It goes by its own name.

    Raises:
        ConfigError: at construction, when it cannot be called so, or returns anything but one loss per token: a mean
            hides what a token does.

    Example:
        >>> def without_clip(log_probs, old_log_probs, advantages, mask):
        ...     return -(log_probs - old_log_probs).exp() * advantages
        >>> FunctionObjective(function=without_clip).label()
        'without_clip'
    """

    function: Callable[..., Any]
    """`function(log_probs, old_log_probs, advantages, mask)`, float64 `(B, T)` and a bool mask."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"function is {self.function!r}; expected a function of tensors")
        object.__setattr__(self, "name", getattr(self.function, "__name__", type(self.function).__name__))
        fields = asked_fields(self.function)
        object.__setattr__(self, "needs", tuple(name for name in fields if not name.endswith("_count")))
        super().__post_init__()
        self.form  # noqa: B018 - whether it can be called is found out now

    @cached_property
    def form(self) -> Form:
        """How it is given its advantages: the way in which it returns one loss per token."""
        probe = make_probe([[1.1, 0.9], [1.0, 1.2]], [[1.0] * 2, [-1.0] * 2], [[True] * 2, [True, False]])
        refused: list[Exception] = []
        for form in get_args(Form):
            try:
                returned = call(self.function, probe.fields, form)
            except Exception as error:
                refused.append(error)
                continue
            if returned.shape == probe.fields["mask"].shape:
                chosen: Form = form
                return chosen
        if len(refused) == len(get_args(Form)):
            raise ConfigError(f"{self.name} cannot be called with tensors (B, T): {refused[0]}") from refused[0]
        raise ConfigError(
            f"{self.name} returns a single number; an objective needs one loss per token, (B, T). Return the losses "
            "before they are averaged; assert_lawful judges the mean as well"
        )

    def label(self) -> str:
        """The function's name, which makes no object."""
        return self.name

    def token_loss(self, batch: TokenBatch) -> Tensor:
        """What the function returns, replica by replica, 0 where masked."""
        names = ("log_probs", "old_log_probs", "advantages", "mask", *self.needs)
        given = dict(zip(names, batch.require(*names, reason=f"{self.name} reads it"), strict=True))
        shape = batch.mask.shape
        rows = {name: value.expand(shape).reshape(-1, *shape[-2:]) for name, value in given.items()}
        losses = [
            call(self.function, {name: values[replica] for name, values in rows.items()}, self.form)
            for replica in range(rows["mask"].shape[0])
        ]
        return torch.stack(losses).view(shape).where(batch.mask, 0)
