"""A block of replicas, and the one way from it to a table: `simulate` and every sweep go it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from envs.automaton import Automaton
from envs.catalogue import Environment
from models import make_policy
from testbed.errors import ConfigError
from testbed.objectives import Objective
from testbed.records import RecordWriter
from testbed.simulation.devices import check_device, episodes_on, on_device
from testbed.simulation.settings import Settings
from testbed.simulation.training import Row, Training

__all__ = ["CHUNK_ELEMENTS", "Block", "block_size", "compute", "replica_elements", "table_seed"]

CHUNK_ELEMENTS = 1 << 16
"""Entries of the largest tensor touched in an update; about what stays in a core's cache."""


@dataclass(frozen=True, eq=False)
class Block:
    """Replicas that are trained as one: what a worker needs to know, as plain as it was asked for.

    Attributes:
        number: which block of the run.
        objective: what is minimised; a hyper-parameter may be a tensor `(R, 1, 1)`.
        environments: each replica's; their tables may differ, their transitions may not.
        model: the policy.
        initial: logits of the initial policy, `(S, V)` or `(R, S, V)`; `None`: the environments' own.
        settings: the loop; its learning rate may be a tensor `(R,)`.
        seeds: number of each replica's seed.
        master_seed: of the run.
        labels: what the table says of each replica, by column, before its seed.
    """

    number: int
    objective: Objective
    environments: tuple[Environment | Automaton, ...]
    model: str
    initial: Tensor | None
    settings: Settings
    seeds: tuple[int, ...]
    master_seed: int
    labels: Mapping[str, Sequence[Any]]

    @property
    def rollouts(self) -> int:
        """How often `compute` says that it advanced."""
        return self.settings.steps + 1


def compute(
    block: Block, advance: Callable[[], object] = lambda: None, writer: RecordWriter | None = None
) -> pd.DataFrame:
    """Train a block's replicas and measure them.

    Args:
        block: the replicas.
        advance: called after every rollout, and once before the first.
        writer: where every update is written down; `None`: nowhere.

    Returns:
        One row per replica and recorded step: the labels, `seed`, `step` (rollouts so far), `updates` and the metrics
        in alphabetical order. No number depends on which replicas share a block.

    Raises:
        ConfigError: the initial policy does not fit the environment, or the model or the objective the settings.
    """
    settings = block.settings
    device = check_device(settings.device)
    spec = _spec(block)
    policy = make_policy(
        block.model, _initial_logits(block, spec).to(device, settings.torch_dtype), episodes_on(spec, device)
    )
    training = Training(
        on_device(block.objective, device), spec, policy, settings, block.seeds, block.master_seed, writer
    )
    rows = []
    for row in training.run():
        advance()
        if row is not None:
            rows.append(row)
    return _table(block, rows)


def _spec(block: Block) -> Automaton:
    """The environment with the tables of every replica; each distinct pair of environment and seed is drawn once."""
    pairs = list(zip(block.environments, block.seeds, strict=True))
    seeds: dict[Environment | Automaton, dict[int, None]] = {}
    for environment, seed in pairs:
        seeds.setdefault(environment, {})[seed] = None
    position: dict[tuple[Environment | Automaton, int], int] = {}
    drawn: list[Automaton] = []
    for environment, numbers in seeds.items():
        position.update({(environment, seed): len(position) + index for index, seed in enumerate(numbers)})
        spec = environment.automaton() if isinstance(environment, Environment) else environment
        drawn.append(spec.for_seeds([table_seed(block.master_seed, seed) for seed in numbers]))
    rows = [position[pair] for pair in pairs]
    if len(drawn) == 1 and rows == list(range(len(rows))):
        return drawn[0]
    index = torch.tensor(rows)

    def gathered(name: str) -> Tensor:
        return torch.cat([getattr(spec, name) for spec in drawn]).index_select(0, index)

    return replace(
        drawn[0],
        rewards=gathered("rewards"),
        success=gathered("success"),
        initial_logits=gathered("initial_logits"),
    )


def _initial_logits(block: Block, spec: Automaton) -> Tensor:
    initial, replicas = block.initial, len(block.seeds)
    if initial is None:
        return spec.initial_logits
    expected = (spec.states, spec.vocabulary)
    if initial.shape == expected:
        return initial.expand(replicas, *expected)
    if initial.shape == (replicas, *expected):
        return initial
    raise ConfigError(
        f"initial has shape {tuple(initial.shape)}; expected {expected} or (seeds, {expected[0]}, {expected[1]}) as "
        f"the states and vocabulary of {spec.name}"
    )


def _table(block: Block, rows: Sequence[Row]) -> pd.DataFrame:
    replicas = len(block.seeds)
    columns: dict[str, Any] = {name: list(values) * len(rows) for name, values in block.labels.items()}
    columns["seed"] = np.tile(np.array(block.seeds, dtype=np.int64), len(rows))
    steps = np.repeat(np.array([row.step for row in rows], dtype=np.int64), replicas)
    columns |= {"step": steps, "updates": steps * block.settings.updates_per_step}
    missing = torch.full((replicas,), torch.nan, dtype=torch.float64)
    for name in sorted({name for row in rows for name in row.metrics}):
        values = [row.metrics[name].double() if name in row.metrics else missing for row in rows]
        columns[name] = torch.stack(values).flatten().numpy()
    return pd.DataFrame(columns)


def block_size(elements: int, device: str) -> int:
    """How many replicas of so many elements fit into a block: into a core's cache, or to keep an accelerator busy."""
    most = CHUNK_ELEMENTS if torch.device(device).type == "cpu" else CHUNK_ELEMENTS << 8
    return max(1, most // elements)


def replica_elements(spec: Automaton, group_size: int) -> int:
    """Entries of the largest tensor a replica touches in an update."""
    return max(spec.states * spec.vocabulary, spec.prompts * group_size * spec.horizon)


def table_seed(master: int, number: int) -> int:
    """The seed of a replica's environment tables."""
    # Seeds of different masters must not share tables: interleave without collisions up to 2^32 seeds.
    return (master << 32) + number
