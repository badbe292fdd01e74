"""One block of a sweep's replicas: everything a worker needs to know, and the table it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from envs import make_spec
from envs.automaton import Automaton
from models import make_policy
from models.policy import Episodes
from testbed.errors import ConfigError
from testbed.objectives import Objective, make_objective
from testbed.simulation.settings import Settings
from testbed.simulation.training import Row, Training

__all__ = [
    "CHUNK_ELEMENTS",
    "Block",
    "Setup",
    "check_device",
    "chunk_elements",
    "compute",
    "episodes_on",
    "on_device",
    "per_replica_elements",
    "table_seed",
    "with_hyper_parameters",
]

CHUNK_ELEMENTS = 1 << 16
"""Entries of the largest tensor touched in an update; about what stays in a core's cache."""
_DTYPE = torch.float32


@dataclass(frozen=True)
class Setup:
    """What the replicas of a block have in common; replicas that differ in any of it run one after the other.

    Attributes:
        objective: a name, a call, or an objective.
        hyper_parameters: those that are the same for all replicas.
        env: the environment's id.
        model: the policy.
        settings: the loop, without what varies from replica to replica.
        sampled_metrics: whether the metrics of the sampled batches are recorded beside the exact ones.
        device: where the policy is.
        compile: whether a rollout and its updates are compiled programs.
    """

    objective: str | Objective
    hyper_parameters: Mapping[str, Any]
    env: str
    model: str
    settings: Mapping[str, Any]
    sampled_metrics: bool
    device: str = "cpu"
    compile: bool = False


@dataclass(frozen=True)
class Block:
    """A block of replicas.

    Attributes:
        number: which block of the sweep.
        setup: what its replicas share.
        cells: number of each replica's cell.
        seeds: number of each replica's seed.
        master_seed: of the sweep.
        hyper_parameters: of the objective, one value per replica.
        learning_rates: one per replica; `None`: all have the one in `setup.settings`.
        environment_parameters: of the environment, one mapping per replica; they change tables but no transition.
        columns: values of the sweep's axes, one per replica, for the table.
    """

    number: int
    setup: Setup
    cells: tuple[int, ...]
    seeds: tuple[int, ...]
    master_seed: int
    hyper_parameters: Mapping[str, tuple[float, ...]]
    learning_rates: tuple[float, ...] | None
    environment_parameters: tuple[Mapping[str, Any], ...]
    columns: Mapping[str, tuple[Any, ...]]


def compute(block: Block) -> pd.DataFrame:
    """Train a block's replicas and return their table, one row per replica and recorded step; on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _compute(block)
    finally:
        torch.set_num_threads(threads)


def _compute(block: Block) -> pd.DataFrame:
    setup = block.setup
    tensors = {
        name: torch.tensor(values, dtype=_DTYPE, device=setup.device).view(-1, 1, 1)
        for name, values in block.hyper_parameters.items()
    }
    objective = with_hyper_parameters(make_objective(setup.objective), {**setup.hyper_parameters, **tensors})
    settings = dict(setup.settings)
    if block.learning_rates is not None:
        settings["learning_rate"] = torch.tensor(block.learning_rates, dtype=_DTYPE)
    loop = Settings(**settings)
    spec = _tables(block)
    policy = make_policy(
        setup.model, spec.initial_logits.to(setup.device, _DTYPE), episodes_on(spec, torch.device(setup.device))
    )
    training = Training(
        objective,
        spec,
        policy,
        loop,
        block.seeds,
        block.master_seed,
        sampled_metrics=setup.sampled_metrics,
        compile=setup.compile,
    )
    return _frame(block, [row for row in training.run() if row is not None], loop)


def _tables(block: Block) -> Automaton:
    """The environment with the tables of every replica; each distinct pair of parameters and seed is built once."""
    settings_seen: dict[str, tuple[Mapping[str, Any], list[int]]] = {}
    for parameters, seed in zip(block.environment_parameters, block.seeds, strict=True):
        numbers = settings_seen.setdefault(repr(parameters), (parameters, []))[1]
        if seed not in numbers:
            numbers.append(seed)
    position: dict[tuple[str, int], int] = {}
    built = []
    for key, (parameters, numbers) in settings_seen.items():
        position.update({(key, number): len(position) + index for index, number in enumerate(numbers)})
        spec = make_spec(block.setup.env, **parameters)
        built.append(spec.for_seeds([table_seed(block.master_seed, number) for number in numbers]))
    index = torch.tensor(
        [
            position[repr(parameters), seed]
            for parameters, seed in zip(block.environment_parameters, block.seeds, strict=True)
        ]
    )

    def gathered(name: str) -> Tensor:
        tables = [getattr(spec, name) for spec in built]
        return (tables[0] if len(tables) == 1 else torch.cat(tables)).index_select(0, index)

    return replace(
        built[0],
        rewards=gathered("rewards"),
        success=gathered("success"),
        initial_logits=gathered("initial_logits"),
    )


def _frame(block: Block, rows: Sequence[Row], settings: Settings) -> pd.DataFrame:
    count = len(block.cells)
    columns: dict[str, Any] = {"cell": np.tile(np.array(block.cells, dtype=np.int64), len(rows))}
    for name, values in block.columns.items():
        columns[name] = list(values) * len(rows)
    columns["seed"] = np.tile(np.array(block.seeds, dtype=np.int64), len(rows))
    steps = np.repeat(np.array([row.step for row in rows], dtype=np.int64), count)
    columns |= {"step": steps, "updates": steps * settings.updates_per_step}
    for name in sorted({name for row in rows for name in row.metrics}):
        missing = torch.full((count,), torch.nan, dtype=torch.float64)
        metric = [row.metrics[name].double() if name in row.metrics else missing for row in rows]
        columns[name] = torch.stack(metric).flatten().numpy()
    return pd.DataFrame(columns)


def with_hyper_parameters(objective: Objective, values: Mapping[str, Any]) -> Objective:
    """The objective with other hyper-parameters; one that a wrapper does not have is looked for in its base.

    Raises:
        ConfigError: a value out of its range.
        KeyError: neither the objective nor any it wraps has the hyper-parameter.
    """
    own = {item.name for item in fields(objective)}
    mine = {name: value for name, value in values.items() if name in own}
    rest = {name: value for name, value in values.items() if name not in own}
    if rest:
        base = getattr(objective, "base", None)
        if not isinstance(base, Objective):
            raise KeyError(next(iter(rest)))
        mine["base"] = with_hyper_parameters(base, rest)
    return replace(objective, **mine) if mine else objective


def check_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: no such device, or none on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device is {name!r}, which cannot be used here ({reason}); expected 'cpu', or an accelerator that torch "
            "finds, such as 'cuda'"
        ) from error
    return device


def chunk_elements(device: torch.device | str) -> int:
    """Entries of the largest tensor of a chunk: what a core's cache holds, or enough to keep an accelerator busy."""
    return CHUNK_ELEMENTS if torch.device(device).type == "cpu" else CHUNK_ELEMENTS << 8


def episodes_on(spec: Automaton, device: torch.device) -> Episodes:
    """An environment as a policy on that device sees it."""
    there = spec.to(device)
    return Episodes(there.initial_states, there.step, there.horizon)


def on_device(objective: Objective, device: torch.device) -> Objective:
    """The objective with its tensors on a device."""
    moved: dict[str, Any] = {}
    for item in fields(objective):
        value = getattr(objective, item.name)
        if isinstance(value, Tensor):
            moved[item.name] = value.to(device)
        elif isinstance(value, Objective):
            moved[item.name] = on_device(value, device)
    return replace(objective, **moved) if moved else objective


def per_replica_elements(spec: Automaton, group_size: int) -> int:
    """Entries of the largest tensor a replica touches in an update."""
    return max(spec.states * spec.vocabulary, spec.prompts * group_size * spec.horizon)


def table_seed(master: int, number: int) -> int:
    """The seed of a replica's environment tables, as `simulate` draws them."""
    # Seeds of different masters must not share tables: interleave without collisions up to 2^32 seeds.
    return (master << 32) + number
