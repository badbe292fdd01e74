"""What an iteration costs in operations, which no clock can blur."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from envs import make_spec
from models import make_policy
from testbed.objectives import make_objective
from testbed.simulation.gradients import LossGradient
from testbed.simulation.settings import Settings
from testbed.simulation.training import Training


class Counter(TorchDispatchMode):
    """Counts the operations that compute something; views and shapes are free."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if not operation.is_view:
            self.names.append(operation.name())
        return operation(*arguments, **(keywords or {}))


def warm(replicas: int, objective: str = "ppo", epochs: int = 4, *, closed_form: bool = True) -> Training:
    """A run after its first rollout."""
    seeds = list(range(replicas))
    spec = make_spec("NullBandit-v1(arms=10,contexts=1)").for_seeds(seeds)
    policy = make_policy("tabular", spec.initial_logits.float())
    training = Training(make_objective(objective), spec, policy, Settings(epochs=epochs), seeds, 0)
    training._loss_gradient = LossGradient(training.objective, closed_form=closed_form)
    training._iterate(record=False)
    return training


def operations(replicas: int, objective: str = "ppo", epochs: int = 4, *, closed_form: bool = True) -> list[str]:
    """Operations of one unrecorded iteration after the first."""
    training = warm(replicas, objective, epochs, closed_form=closed_form)
    with Counter() as counter:
        training._iterate(record=False)
    return counter.names


def kept_for_backward(objective: str, *, closed_form: bool) -> int:
    """Tensors that one iteration keeps for a backward pass."""
    training = warm(2, objective, closed_form=closed_form)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training._iterate(record=False)
    return len(kept)


def test_replicas_cost_no_operations() -> None:
    assert operations(2) == operations(50)


@pytest.mark.parametrize("objective", ["ppo", "gppo", "sapo"])
def test_closed_form_builds_no_graph(objective: str) -> None:
    assert kept_for_backward(objective, closed_form=True) == 0 < kept_for_backward(objective, closed_form=False)
    closed, graph = (operations(2, objective, closed_form=choice) for choice in (True, False))
    # Six operations less in each of the four updates.
    assert len(closed) <= len(graph) - 24


def test_an_update_is_this_many_operations() -> None:
    # Log-softmax 1, its exponential as a power of 2 in two, gather 1; difference, clamp and ratio 3; weight 1, bound
    # and comparison 3, product with both cuts 2, reduction 1; scatter with its zeros 2, row sums 1, correction 1; step
    # 1. A new one has to be worth its time.
    update = len(operations(2, epochs=5)) - len(operations(2, epochs=4))
    assert update <= 19


def test_a_rollout_is_this_many_operations() -> None:
    # Distribution function 2; search among ten arms 2 + 4 in each of 4 steps; index and log-probabilities 2; rewards 4;
    # whether they are finite 6; standardised advantages 14, of which 6 say whether a group's rewards are equal; their
    # opposite 1. The mask is the same as in the first rollout and costs nothing, and the first update finds the
    # log-probabilities the rollout was drawn with.
    updates = 4 * 19 - 1
    assert len(operations(2, epochs=4)) - updates <= 47


def test_a_rollout_reuses_the_softmax_of_its_policy() -> None:
    # Four updates, four policies: the first update finds the table the rollout was drawn from.
    assert sum("log_softmax" in name for name in operations(2, epochs=4)) == 4


def test_memory_does_not_grow_with_the_steps() -> None:
    # Rows are yielded, not kept, and everything else is a buffer: 60 steps leave no more tensors alive than 10.
    import gc

    def alive(steps: int) -> int:
        spec = make_spec("NullBandit-v1(arms=10,contexts=1)").for_seeds([0, 1])
        policy = make_policy("tabular", spec.initial_logits.float())
        training = Training(make_objective("ppo"), spec, policy, Settings(steps=steps, metrics_every=steps), [0, 1], 0)
        rows = [row for row in training.run() if row is not None]
        gc.collect()
        found = sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())
        assert len(rows) == 2
        return found

    alive(10)
    few, many = alive(10), alive(60)
    # Not equal: what earlier tests left behind may be freed meanwhile. Fifty kept steps would be fifty tensors.
    assert many <= few
