"""From an objective to the weights of a policy's gradient, without a graph through the policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from models.policy import Policy, Samples
from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective
from testbed.simulation.optimisers import Optimiser, clip_by_norm, gradient_norm

__all__ = ["CompiledUpdates", "LossGradient", "Update"]

_UNROLLED = 8
"""Updates in one compiled program at most."""


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


_Part = tuple[tuple[Tensor, ...], TokenBatch, Tensor]
"""The tokens' places in the policy, the tokens, and their weights in the mean that is the loss."""


class Update(NamedTuple):
    """What an update saw.

    Attributes:
        batch: the tokens under the policy before it.
        norm: `(R,)`, of the gradient before it was clipped.
    """

    batch: TokenBatch
    norm: Tensor


class CompiledUpdates:
    """The updates that a rollout serves, compiled into one program: gradients and steps, one after the other.

    The same arithmetic as `Policy.evaluate`, `LossGradient`, `Policy.gradient` and `Optimiser.step` in turn, in another
    order of sums. The first call takes some seconds; programs are kept for as long as the process lives.

    Args:
        objective: whose loss is differentiated; it has a closed form.
        policy: whose parameters; it has a fused gradient.
        optimiser: of these parameters.
        epochs: how often a rollout is gone through.
        max_grad_norm: largest gradient norm of a replica; `None`: any.

    Raises:
        ConfigError: one of them lacks what it needs, or PyTorch is too old.
    """

    def __init__(
        self, objective: Objective, policy: Policy, optimiser: Optimiser, epochs: int, max_grad_norm: float | None
    ) -> None:
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
        self._objective, self._policy, self._optimiser = objective, policy, optimiser
        self._epochs, self._limit = epochs, max_grad_norm
        self._loss_gradient = LossGradient(objective)

    def __call__(self, parts: Sequence[tuple[Samples, TokenBatch]], *, record: bool) -> Iterator[Update]:
        """Make the updates; every epoch goes through all parts in turn.

        Args:
            parts: mini-batches of the same rollout; the current policies of their batches are not read.
            record: whether to yield what each update saw.
        """
        # The compiler unrolls what a program repeats: one of many updates would take long to make.
        prepared = [
            (self._policy.places(samples), batch.prepared(), self._loss_gradient.weights_of_reduction(batch))
            for samples, batch in parts
        ]
        at_once = max(n for n in range(1, self._epochs + 1) if self._epochs % n == 0 and n * len(parts) <= _UNROLLED)
        for _ in range(self._epochs // at_once):
            with torch.no_grad():
                found = _program()(
                    self._policy, self._optimiser, self._objective, prepared, at_once, self._limit, record
                )
            recorded = [batch for _, batch in parts] * at_once if record else []
            for batch, (log_probs, entropies, norm) in zip(recorded, found, strict=True):
                yield Update(batch.with_current(log_probs, entropies), norm)


@cache
def _program() -> Callable[..., Any]:
    # Shapes are fixed within a run; a program for any shape would be slower.
    return torch.compile(_updates, fullgraph=True, dynamic=False)


def _updates(
    policy: Policy,
    optimiser: Optimiser,
    objective: Objective,
    parts: Sequence[_Part],
    epochs: int,
    max_grad_norm: float | None,
    record: bool,
) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """Make the updates; returns the log-probabilities, entropies and gradient norm that each saw, if recorded."""
    found = [_update(policy, optimiser, objective, part, max_grad_norm) for part in itertools.chain(*[parts] * epochs)]
    return found if record else []


def _update(
    policy: Policy, optimiser: Optimiser, objective: Objective, part: _Part, max_grad_norm: float | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    places, batch, reduction_weights = part
    seen: list[tuple[Tensor, Tensor | None]] = []

    def weigh(log_probs: Tensor, entropies: Tensor | None) -> tuple[Tensor, Tensor | None]:
        shape = reduction_weights.shape
        seen.append((log_probs.view(shape), None if entropies is None else entropies.view(shape)))
        weights = objective.log_prob_gradient(batch.with_current(*seen[0]))
        assert weights is not None
        return (weights * reduction_weights).flatten(-2), None

    gradients = policy.fused_gradient(places, weigh, entropies="entropies" in objective.needs)
    norm = gradient_norm(gradients)
    if max_grad_norm is not None:
        gradients = clip_by_norm(gradients, norm, max_grad_norm)
    optimiser.step(gradients)
    return *seen[0], norm
