"""Anybody's loss on a probe: an objective, or a plain function of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective
from testbed.testing.probes import Probe

__all__ = [
    "AnyLoss",
    "Evaluation",
    "Form",
    "NoGradientError",
    "asked_fields",
    "call",
    "close",
    "evaluate",
    "gradient_of",
    "judge_objective",
]

AnyLoss = Callable[..., Any]
"""An `Objective`, or a function `(log_probs, old_log_probs, advantages, mask)` of tensors `(B, T)` that returns one
loss per token or their mean. Parameters named like other fields of `TokenBatch` are given those."""

Form = Literal["token", "response"]
"""How a plain function is given its advantages: `(B, T)`, or `(B,)`."""

_GIVEN = ("log_probs", "old_log_probs", "advantages", "mask")
_OPTIONAL = (
    "entropies",
    "old_entropies",
    "old_kappas",
    "sampler_log_probs",
    "ref_log_probs",
    "token_count",
    "sequence_count",
)


class NoGradientError(ConfigError):
    """What a loss returned does not depend on the log-probabilities."""


@dataclass(frozen=True)
class Evaluation:
    """What a loss says about a probe.

    Attributes:
        loss: the number that is minimised.
        gradient: of the loss for log p, `(B, T)`.
        token_loss: the loss of every token, `(B, T)`, 0 where masked; `None` for a function that returns their mean.
    """

    loss: Tensor
    gradient: Tensor
    token_loss: Tensor | None = None

    def disagreement(self, expected: Evaluation, rtol: float) -> str | None:
        """The first of gradient, token losses and loss that differs by more than `rtol` of its largest entry."""
        if not close(self.gradient, expected.gradient, rtol):
            return "gradient"
        if self.token_loss is not None and expected.token_loss is not None:
            return None if close(self.token_loss, expected.token_loss, rtol) else "token_loss"
        return None if close(self.loss, expected.loss, rtol) else "loss"


def close(first: Tensor, second: Tensor, rtol: float) -> bool:
    """Whether two tensors differ by at most `rtol` of the second's largest entry."""
    scale = max(float(second.abs().max()), 1e-3)
    # Written so that NaN is a difference.
    return bool(((first - second).abs() <= rtol * scale).all())


def evaluate(loss: AnyLoss, probe: Probe, objective: Objective, form: Form = "token") -> Evaluation:
    """A loss on a probe; token losses are averaged as the objective averages its own.

    Raises:
        ConfigError: it takes a parameter that no batch has, or returns neither one loss per token nor a single number,
            or something without a gradient.
    """
    leaf = probe.leaf()
    if isinstance(loss, Objective):
        return judge_objective(loss, probe.batch(leaf), leaf)
    # Copies, because a loss that writes to its inputs must not change what others are given.
    copies = {name: value.clone() for name, value in probe.fields.items()}
    returned = call(loss, {**copies, "log_probs": leaf}, form)
    if returned.dim() == 0:
        return Evaluation(returned.detach(), gradient_of(returned, leaf))
    kept = returned.where(probe.fields["mask"], 0)
    reduced = (kept * objective.reduction_weights(probe.batch(leaf.detach()))).sum()
    return Evaluation(reduced.detach(), gradient_of(reduced, leaf), kept.detach())


def call(loss: Callable[..., Any], fields: Mapping[str, Tensor], form: Form) -> Tensor:
    """What a function returns for these fields: token losses `(B, T)` or a single number; counts are made if absent.

    Raises:
        ConfigError: as `evaluate`.
    """
    mask = fields["mask"]
    given = {"token_count": mask.sum(), "sequence_count": mask.any(-1).sum(), **fields}
    if form == "response":
        given["advantages"] = given["advantages"][:, 0]
    with torch.enable_grad():
        returned = loss(*(given[name] for name in _GIVEN), **{name: given[name] for name in asked_fields(loss)})
    return _checked(returned, given["log_probs"])


def judge_objective(objective: Objective, batch: TokenBatch, leaf: Tensor) -> Evaluation:
    """An objective on a batch, and the gradient for a leaf behind it."""
    output = objective(batch)
    return Evaluation(output.loss.detach(), gradient_of(output.loss, leaf), output.token_loss)


def asked_fields(loss: AnyLoss) -> list[str]:
    """Names of the optional fields that a function asks for, after the four that every one is given.

    Raises:
        ConfigError: it takes a parameter that no batch has.
    """
    try:
        parameters = list(inspect.signature(loss).parameters.values())
    except (TypeError, ValueError):
        return []
    asked = []
    for parameter in parameters[len(_GIVEN) :]:
        if parameter.name in _OPTIONAL:
            asked.append(parameter.name)
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise ConfigError(
                f"the loss takes {parameter.name!r}, which no batch has; expected (log_probs, old_log_probs, "
                f"advantages, mask) and, by name, any of {', '.join(_OPTIONAL)}. Bind the rest with functools.partial"
            )
    return asked


def _checked(returned: Any, leaf: Tensor) -> Tensor:
    if not isinstance(returned, Tensor):
        raise ConfigError(
            f"the loss returned a {type(returned).__name__}; expected a tensor: one loss per token, "
            f"{tuple(leaf.shape)}, or their mean"
        )
    if returned.dim() > 0 and returned.shape != leaf.shape:
        raise ConfigError(
            f"the loss returned a tensor of shape {tuple(returned.shape)}; expected {tuple(leaf.shape)}, one loss per "
            "token, or a single number"
        )
    return returned


def gradient_of(loss: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of a number for a leaf.

    Raises:
        NoGradientError: it does not depend on the leaf.
    """
    found = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
    if found is None:
        raise NoGradientError(
            "the loss has no gradient: what it returned does not depend on log_probs. Is it detached, computed under "
            "no_grad, or made of the old log-probabilities alone?"
        )
    return found.detach()
