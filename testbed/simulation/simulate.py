"""`simulate`: from names to a finished table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from envs import make_spec
from envs.automaton import Automaton
from models import make_policy
from testbed.errors import ConfigError, TestbedWarning
from testbed.objectives import Objective, make_objective
from testbed.progress import LateProgress
from testbed.simulation.blocks import (
    check_device,
    chunk_elements,
    episodes_on,
    on_device,
    per_replica_elements,
    table_seed,
)
from testbed.simulation.run import Run, environment_facts
from testbed.simulation.settings import Settings, check_whole
from testbed.simulation.training import Row, Training

__all__ = ["SimulationWarning", "simulate"]


class SimulationWarning(TestbedWarning):
    """The run is valid but cannot show what it was probably made to show."""


def simulate(
    objective: str | Objective | Sequence[str | Objective],
    env: str | Automaton,
    model: str = "tabular",
    initial: Tensor | None = None,
    *,
    seeds: int = 64,
    seed: int = 0,
    steps: int = 300,
    group_size: int = 16,
    epochs: int = 4,
    minibatches: int = 1,
    learning_rate: float | Tensor = 1.0,
    optimizer: str = "sgd",
    max_grad_norm: float | None = None,
    advantage: str | None = None,
    staleness: int = 0,
    mismatch: float | str | None = None,
    partial: int | None = None,
    metrics_every: int = 1,
    sampled_metrics: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    compile: bool = False,
) -> Run:
    """Train policies on a toy environment, all seeds at once, and measure them exactly.

    Each rollout draws `group_size` responses to every prompt, standardises their rewards, and takes `epochs` ×
    `minibatches` updates of the objective. Objectives of one call are paired: seed i has the same environment tables,
    initial policy and random numbers under each of them.

    Losses of different reductions have different scales (`seq_sum_token_mean` is B times `seq_mean_token_mean`):
    give objectives the same `reduction` to compare them at one learning rate.

    Args:
        objective: a name, `name(key=value,…)`, an `Objective`, or a list of them. Hyper-parameters may be tensors of
            shape `(seeds, 1, 1)`, one value per replica.
        env: an environment's id such as `RareArm-v1`, `id(key=value,…)`, or a spec from `make_spec`.
        model: a registered policy, or `name(key=value,…)`.
        initial: logits of the initial policy, `(S, V)` or `(seeds, S, V)`; `None`: the environment's own.
        seeds: replicas per objective.
        seed: master seed; the same one gives the same table bit for bit, whatever else runs beside it.
        steps: rollouts.
        group_size: responses per prompt and rollout.
        epochs: passes over each rollout.
        minibatches: parts each pass is split into, every part with the same number of responses per prompt.
        learning_rate: step size; a tensor `(seeds,)` gives each replica its own.
        optimizer: `sgd` or `adam`.
        max_grad_norm: gradient norm above which a replica's gradient is scaled down; `None`: never.
        advantage: estimator, a name or `name(key=value,…)`; `None`: the objective's own.
        staleness: rollouts are drawn by the policy of that many rollouts ago.
        mismatch: how the sampler differs from the trainer, see `testbed.simulation.Settings`; `None`: not at all.
        partial: how much of a response a rollout writes, see `testbed.simulation.Settings`.
        metrics_every: rollouts between two rows of the table.
        sampled_metrics: whether rows also measure the sampled batches, which costs about as much as the updates;
            without them a row has the metrics `exact/…` alone.
        dtype: floating-point type of the policy and the objective; exact metrics are float64 always.
        device: where policies are trained, such as `cuda`. Random numbers are drawn on the processor, so every device
            sees the same; results differ by the rounding of its sums, which accelerators do not even repeat.
        compile: whether a rollout and all its updates are two programs that `torch.compile` makes, which takes seconds
            and a C++ compiler; for tabular policies and objectives with a closed form. It changes rounding as well.

    Returns:
        A `Run`; `run.table` has one row per objective, replica and recorded step. Row 0 is the initial policy, where
        sampled metrics are NaN.

    Raises:
        UnknownNameError: no such objective, environment, model, optimiser or advantage.
        ConfigError: a setting is out of range, there is no such device, or `compile` cannot serve the objective or
            the model.

    Warns:
        SimulationWarning: every ratio stayed 1, so that objectives which differ only by clipping cannot be told apart.
    """
    settings = Settings(
        steps=steps,
        group_size=group_size,
        epochs=epochs,
        minibatches=minibatches,
        learning_rate=learning_rate,
        optimizer=optimizer,
        max_grad_norm=max_grad_norm,
        advantage=advantage,
        staleness=staleness,
        mismatch=mismatch,
        partial=partial,
        metrics_every=metrics_every,
    )
    check_whole("seeds", seeds, 1)
    check_whole("seed", seed, 0)
    objectives = [
        make_objective(item) for item in ([objective] if isinstance(objective, str | Objective) else objective)
    ]
    if not objectives:
        raise ConfigError("objective is an empty list; expected at least one name")
    for item in objectives:
        settings.resolve_advantage(item.advantage)
    spec = make_spec(env) if isinstance(env, str) else env
    if isinstance(learning_rate, Tensor) and learning_rate.shape != (seeds,):
        raise ConfigError(f"learning_rate has shape {tuple(learning_rate.shape)}; expected ({seeds},), one per seed")

    place = check_device(device)
    chunk = _chunk_size(spec, settings, seeds, place)
    if isinstance(learning_rate, Tensor) or any(_has_tensor(item) for item in objectives):
        chunk = seeds
    episodes = episodes_on(spec, place)
    frames: list[pd.DataFrame] = []
    largest = 0.0
    labels = _distinct([item.label() for item in objectives])
    with LateProgress("simulating", len(objectives) * -(-seeds // chunk) * (steps + 1)) as progress:
        for index, (given, label) in enumerate(zip(objectives, labels, strict=True)):
            item = on_device(given, place)
            for start in range(0, seeds, chunk):
                numbers = list(range(start, min(start + chunk, seeds)))
                tables = spec.for_seeds([table_seed(seed, number) for number in numbers])
                logits = _initial_logits(tables, initial, numbers).to(place, dtype)
                policy = make_policy(model, logits, episodes)
                training = Training(
                    item, tables, policy, settings, numbers, seed, compile=compile, sampled_metrics=sampled_metrics
                )
                rows = []
                for row in training.run():
                    progress.advance()
                    if row is not None:
                        rows.append(row)
                largest = max(largest, training.largest_log_ratio)
                frames.append(_frame(label, index * seeds, numbers, rows, settings))
    if sampled_metrics and largest == 0:
        warnings.warn(
            "every probability ratio was exactly 1, so objectives that differ by their clipping have the same gradient "
            f"here and this run cannot separate them; raise epochs ({epochs}) or staleness ({staleness})",
            SimulationWarning,
            stacklevel=2,
        )
    table = pd.concat(frames, ignore_index=True)
    facts = _facts(labels, spec, model, seeds, seed, settings, dtype)
    return Run(table, facts | {"device": str(place), "compile": compile})


def _initial_logits(spec: Automaton, initial: Tensor | None, numbers: list[int]) -> Tensor:
    if initial is None:
        return spec.initial_logits
    expected = (spec.states, spec.vocabulary)
    if initial.shape == expected:
        return initial.expand(len(numbers), *expected)
    if initial.dim() == 3 and initial.shape[1:] == expected and initial.shape[0] > numbers[-1]:
        return initial[numbers]
    raise ConfigError(
        f"initial has shape {tuple(initial.shape)}; expected {expected} or (seeds, {expected[0]}, {expected[1]}) as "
        f"the states and vocabulary of {spec.name}"
    )


def _chunk_size(spec: Automaton, settings: Settings, seeds: int, device: torch.device) -> int:
    return max(1, min(seeds, chunk_elements(device) // per_replica_elements(spec, settings.group_size)))


def _has_tensor(objective: Objective) -> bool:
    return any(
        isinstance(value, Tensor) or (isinstance(value, Objective) and _has_tensor(value))
        for value in vars(objective).values()
    )


def _distinct(labels: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return result


def _frame(label: str, offset: int, numbers: list[int], rows: list[Row], settings: Settings) -> pd.DataFrame:
    count = len(numbers)
    columns: dict[str, Any] = {
        "objective": label,
        "replica": [offset + number for _ in rows for number in numbers],
        "seed": [number for _ in rows for number in numbers],
        "step": [row.step for row in rows for _ in numbers],
        "updates": [row.step * settings.updates_per_step for row in rows for _ in numbers],
    }
    for name in sorted({name for row in rows for name in row.metrics}):
        missing = torch.full((count,), torch.nan, dtype=torch.float64)
        values = [row.metrics[name].double() if name in row.metrics else missing for row in rows]
        columns[name] = torch.stack(values).flatten().numpy()
    return pd.DataFrame(columns)


def _facts(
    labels: list[str],
    spec: Automaton,
    model: str,
    seeds: int,
    seed: int,
    settings: Settings,
    dtype: torch.dtype,
) -> dict[str, Any]:
    recorded = asdict(settings)
    if isinstance(settings.learning_rate, Tensor):
        recorded["learning_rate"] = settings.learning_rate.tolist()
    return {
        "objectives": labels,
        "env": spec.name,
        "env_parameters": dict(spec.parameters),
        "model": model,
        "seeds": seeds,
        "seed": seed,
        "dtype": str(dtype).removeprefix("torch."),
        "settings": recorded,
        "versions": environment_facts(),
    }
