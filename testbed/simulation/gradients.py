"""From an objective to the weights of a policy's gradient, without a graph through the policy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives import Objective

__all__ = ["LossGradient", "Update"]


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


class Update(NamedTuple):
    """What an update saw.

    Attributes:
        batch: the tokens under the policy before it.
        norm: `(R,)`, of the gradient before it was clipped.
    """

    batch: TokenBatch
    norm: Tensor
