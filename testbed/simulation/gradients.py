"""From an objective to the weights of a policy's gradient, without a graph through the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from models.policy import Policy, Samples
from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective

__all__ = ["CompiledGradient", "LossGradient"]


class LossGradient:
    """dL/dlog p and dL/dH of every token: the objective's closed form where it has one, else a graph from the leaves.

    Args:
        objective: whose loss is differentiated.
        closed_form: whether a closed form may be used; False always builds the graph.
    """

    def __init__(self, objective: Objective, *, closed_form: bool = True) -> None:
        self._objective = objective
        self._closed_form = closed_form and objective.has_closed_form
        self._mask: Tensor | None = None
        self._full_shape: torch.Size | None = None
        self._reduction_weights = torch.empty(0)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Tensor | None]:
        """The two gradients, `(R, B, T)`; `None` where no entropy enters the loss.

        Args:
            batch: the tokens, `log_probs` and `entropies` without a graph.
        """
        if self._closed_form:
            with torch.no_grad():
                weights = self._objective.log_prob_gradient(batch)
                if weights is not None:
                    return weights * self.weights_of_reduction(batch), None
        return self._from_leaves(batch)

    def _from_leaves(self, batch: TokenBatch) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad():
            log_probs = batch.log_probs.detach().requires_grad_()
            entropies = None if batch.entropies is None else batch.entropies.detach().requires_grad_()
            leaves = [log_probs] if entropies is None else [log_probs, entropies]
            loss = self._objective.loss(batch.with_current(log_probs, entropies))
            found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        weights = torch.zeros_like(log_probs) if found[0] is None else found[0]
        return weights, found[1] if len(found) > 1 else None

    def weights_of_reduction(self, batch: TokenBatch) -> Tensor:
        """∂L/∂ℓ of every token, `(R, B, T)`."""
        # They depend on the mask alone: one graph per rollout, and one per run where nothing is ever masked.
        if batch.mask is not self._mask:
            self._mask = batch.mask
            full = bool(batch.mask.all())
            if not full or batch.mask.shape != self._full_shape:
                self._reduction_weights = self._objective.reduction_weights(batch)
            self._full_shape = batch.mask.shape if full else None
        return self._reduction_weights


OLDEST_COMPILER = "2.13"
"""The oldest PyTorch whose compiler is known to trace a batch with another current policy; 2.11 does not."""


class CompiledGradient:
    """The gradient of a policy's parameters for an objective, compiled into one program.

    The same arithmetic as `Policy.evaluate`, `LossGradient` and `Policy.gradient` one after the other, in another order
    of sums. The first call takes some seconds; programs are kept for as long as the process lives.

    Args:
        objective: whose loss is differentiated; it has a closed form.
        policy: whose parameters; it has a fused gradient.

    Raises:
        ConfigError: one of them lacks what it needs, or PyTorch is too old.
    """

    def __init__(self, objective: Objective, policy: Policy) -> None:
        if TorchVersion(torch.__version__) < OLDEST_COMPILER:
            raise ConfigError(
                f"compile is on, but PyTorch {torch.__version__} cannot trace the program; use {OLDEST_COMPILER} or "
                "newer, or switch compile off"
            )
        if not policy.has_fused_gradient:
            raise ConfigError(
                f"compile is on, but {type(policy).__name__} has no fused gradient; choose another model, or switch "
                "compile off"
            )
        if not objective.has_closed_form:
            raise ConfigError(
                f"compile is on, but {objective.label()} states no closed form of its gradient; switch compile off"
            )
        self._objective, self._policy = objective, policy
        self._loss_gradient = LossGradient(objective)

    def __call__(self, samples: Samples, batch: TokenBatch) -> Sequence[Tensor]:
        """One gradient per parameter.

        Args:
            samples: the tokens.
            batch: the same tokens; its current policy is not read.
        """
        with torch.no_grad():
            gradients: Sequence[Tensor] = _program()(
                self._policy,
                self._objective,
                self._policy.places(samples),
                batch.prepared(),
                self._loss_gradient.weights_of_reduction(batch),
            )
            return gradients


@cache
def _program() -> Callable[..., Any]:
    # Shapes are fixed within a run; a program for any shape would be slower.
    return torch.compile(_gradient, fullgraph=True, dynamic=False)


def _gradient(
    policy: Policy, objective: Objective, places: tuple[Tensor, ...], batch: TokenBatch, reduction_weights: Tensor
) -> Sequence[Tensor]:
    def weigh(log_probs: Tensor, found: Tensor | None) -> tuple[Tensor, Tensor | None]:
        shape = reduction_weights.shape
        current = batch.with_current(log_probs.view(shape), None if found is None else found.view(shape))
        weights = objective.log_prob_gradient(current)
        assert weights is not None
        return (weights * reduction_weights).flatten(-2), None

    return policy.fused_gradient(places, weigh, entropies="entropies" in objective.needs)
