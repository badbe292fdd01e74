"""The loop's arithmetic as programs that `torch.compile` makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from models.policy import Policy, Samples, Step
from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective
from testbed.simulation.gradients import LossGradient, Update
from testbed.simulation.optimisers import Optimiser, clip_by_norm, gradient_norm

__all__ = ["OLDEST_COMPILER", "CompiledLoop"]

_UNROLLED = 8
"""Updates in one compiled program at most; one epoch is never divided."""
_PROGRAMS = 256
"""Programs of a kind in one process at most."""
OLDEST_COMPILER = "2.13"
"""The oldest PyTorch whose compiler is known to trace a batch with another current policy; 2.11 does not."""
_Inputs = tuple[tuple[Tensor, ...], TokenBatch, Tensor]
"""The tokens' places in the policy, the tokens, and their weights in the mean that is the loss."""


class CompiledLoop:
    """A run's two compiled programs: one draws a rollout, one makes the updates that it serves.

    The same arithmetic as `Policy.sample`, and as `Policy.evaluate`, `LossGradient`, `Policy.gradient` and
    `Optimiser.step` in turn, in another order of sums. The first calls take some seconds; programs are kept for as long
    as the process lives.

    Args:
        objective: whose loss is differentiated; it has a closed form.
        policy: whose parameters; it has a fused path.
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
        if not policy.has_fused_path:
            raise ConfigError(
                f"compile is on, but {type(policy).__name__} has no fused path; choose another model, or switch "
                "compile off"
            )
        if not objective.has_closed_form:
            raise ConfigError(
                f"compile is on, but {objective.label()} states no closed form of its gradient; switch compile off"
            )
        self._objective, self._policy, self._optimiser = objective, policy, optimiser
        self._epochs, self._limit = epochs, max_grad_norm
        self._loss_gradient = LossGradient(objective)
        self._mask: Tensor | None = None

    def sample(
        self, writer: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, *, entropies: bool
    ) -> Samples:
        """`Policy.sample` of a policy of the same kind; arguments as there."""
        with torch.no_grad():
            samples = Samples(*_sampler()(writer, initial_states, step, uniforms, entropies))
        if uniforms.shape[-1] > 1:
            return samples
        # Of single tokens none is missing: what depends on the mask alone need not be found out again.
        self._mask = samples.mask if self._mask is None else self._mask
        return replace(samples, mask=self._mask)

    def update(self, minibatches: Sequence[tuple[Samples, TokenBatch]], *, record: bool) -> Iterator[Update]:
        """Make the updates; every epoch goes through all mini-batches in turn.

        Args:
            minibatches: those of one rollout; the current policies of their batches are not read.
            record: whether to yield what each update saw.
        """
        prepared = [
            (self._policy.places(samples), batch.prepared(), self._loss_gradient.weights_of_reduction(batch))
            for samples, batch in minibatches
        ]
        # The compiler unrolls what a program repeats: one of many updates would take long to make.
        most = max(1, _UNROLLED // len(minibatches))
        at_once = max(n for n in range(1, min(most, self._epochs) + 1) if self._epochs % n == 0)
        for _ in range(self._epochs // at_once):
            with torch.no_grad():
                found = _updater()(
                    self._policy, self._optimiser, self._objective, prepared, at_once, self._limit, record
                )
            recorded = [batch for _, batch in minibatches] * at_once if record else []
            for batch, (log_probs, entropies, norm) in zip(recorded, found, strict=True):
                yield Update(batch.with_current(log_probs, entropies), norm)


@cache
def _sampler() -> Callable[..., Any]:
    return _compiled(_sample)


@cache
def _updater() -> Callable[..., Any]:
    return _compiled(_updates)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # A program for any shape would be slower, and shapes are fixed within a run: there is one for each.
    settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "recompile_limit": _PROGRAMS}
    program: Callable[..., Any] = torch.compile(function, **settings)
    return program


def _sample(
    writer: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, entropies: bool
) -> tuple[Tensor | None, ...]:
    return writer.fused_sample(initial_states, step, uniforms, entropies=entropies)


def _updates(
    policy: Policy,
    optimiser: Optimiser,
    objective: Objective,
    inputs: Sequence[_Inputs],
    epochs: int,
    max_grad_norm: float | None,
    record: bool,
) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """Make the updates; returns the log-probabilities, entropies and gradient norm that each saw, if recorded."""
    found = [_update(policy, optimiser, objective, one, max_grad_norm) for one in itertools.chain(*[inputs] * epochs)]
    return found if record else []


def _update(
    policy: Policy, optimiser: Optimiser, objective: Objective, inputs: _Inputs, max_grad_norm: float | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    places, batch, reduction_weights = inputs
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
