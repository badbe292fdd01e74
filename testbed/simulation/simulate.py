"""`simulate`: from names to a finished table."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from envs import make_spec
from envs.automaton import Automaton
from testbed.errors import ConfigError, TestbedWarning
from testbed.objectives import Objective, make_objective
from testbed.output import free_folder
from testbed.progress import LateProgress
from testbed.records import RecordWriter
from testbed.simulation.blocks import Block, block_size, compute, replica_elements
from testbed.simulation.estimate import Estimate, available_memory, memory_text
from testbed.simulation.run import Run, environment_facts
from testbed.simulation.settings import Settings, check_whole

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
    record: str | Path | None = None,
    **settings: Any,
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
        record: new folder to write every update of the run down in, token by token, for `testbed replay`; of one
            objective. Seeds are its replicas, prompts are numbered. The table stays the same.
        settings: the fields of `testbed.simulation.Settings`, such as `steps=100` or `learning_rate=4.0`.

    Returns:
        A `Run`; `run.table` has one row per objective, replica and recorded step. Row 0 is the initial policy, where
        sampled metrics are NaN.

    Raises:
        UnknownNameError: no such objective, environment, model, setting, optimiser or advantage.
        ConfigError: a setting is out of range, there is no such device, `compile` cannot serve the objective, the model
            or a record, a record is asked for of several objectives, or the memory does not suffice.
        RunExistsError: the record's folder holds something.

    Warns:
        SimulationWarning: every ratio stayed 1, so that objectives which differ only by clipping cannot be told apart.
    """
    chosen = Settings.of(**settings)
    check_whole("seeds", seeds, 1)
    check_whole("seed", seed, 0, 2**64 - 1)
    objectives = [
        make_objective(item) for item in ([objective] if isinstance(objective, str | Objective) else objective)
    ]
    if not objectives:
        raise ConfigError("objective is an empty list; expected at least one name")
    for item in objectives:
        chosen.resolve_advantage(item.advantage)
    spec = make_spec(env) if isinstance(env, str) else env
    rates = chosen.learning_rate
    if isinstance(rates, Tensor) and rates.shape != (seeds,):
        raise ConfigError(f"learning_rate has shape {tuple(rates.shape)}; expected ({seeds},), one per seed")
    if initial is not None and initial.dim() == 3 and len(initial) < seeds:
        raise ConfigError(f"initial has {len(initial)} policies; expected {seeds}, one per seed, or a single table")

    if record is not None and len(objectives) > 1:
        raise ConfigError(
            f"record is {str(record)!r} and there are {len(objectives)} objectives; a record is of one. Call simulate "
            "once for each, with a folder of its own"
        )
    # What has one value per replica is not cut, nor is what is written down rollout by rollout.
    whole = record is not None or isinstance(rates, Tensor) or any(_has_tensor(item) for item in objectives)
    elements = replica_elements(spec, chosen.group_size)
    size = seeds if whole else min(seeds, block_size(elements, chosen.device))
    _check_memory(chosen, len(objectives) * seeds, size, elements)
    labels = _distinct([item.label() for item in objectives])
    blocks: list[Block] = []
    for index, (item, label) in enumerate(zip(objectives, labels, strict=True)):
        for start in range(0, seeds, size):
            numbers = range(start, min(start + size, seeds))
            blocks.append(
                Block(
                    number=len(blocks),
                    objective=item,
                    environments=(spec,) * len(numbers),
                    model=model,
                    initial=initial[list(numbers)] if initial is not None and initial.dim() == 3 else initial,
                    settings=chosen,
                    seeds=tuple(numbers),
                    master_seed=seed,
                    labels={
                        "objective": [label] * len(numbers),
                        "replica": [index * seeds + number for number in numbers],
                    },
                )
            )
    recorded = asdict(chosen) | ({"learning_rate": rates.tolist()} if isinstance(rates, Tensor) else {})
    writer = None
    if record is not None:
        facts = {"env": spec.name, "model": model, "seeds": seeds, "seed": seed, **recorded}
        writer = RecordWriter(free_folder(record), objective=labels[0], settings=facts)
    with (
        LateProgress("simulating", sum(block.rollouts for block in blocks)) as progress,
        writer or contextlib.nullcontext(),
    ):
        table = pd.concat([compute(block, progress.advance, writer) for block in blocks], ignore_index=True)
    if "ratio/log_abs_mean" in table and not (table["ratio/log_abs_mean"] > 0).any():
        warnings.warn(
            "every probability ratio was exactly 1, so objectives that differ by their clipping have the same gradient "
            f"here and this run cannot separate them; raise epochs ({chosen.epochs}) or staleness ({chosen.staleness})",
            SimulationWarning,
            stacklevel=2,
        )
    return Run(
        table,
        {
            "objectives": labels,
            "env": spec.name,
            "env_parameters": dict(spec.parameters),
            "model": model,
            "seeds": seeds,
            "seed": seed,
            "settings": recorded,
            "versions": environment_facts(),
        },
    )


def _listed() -> inspect.Signature:
    """The signature with every setting by name, for `help` and whoever else reads it."""
    written = inspect.signature(simulate)
    settings = [
        inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=item.type)
        for item in fields(Settings)
    ]
    own = [item for item in written.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
    return written.replace(parameters=[*own, *settings])


simulate.__signature__ = _listed()  # type: ignore[attr-defined]


def _check_memory(settings: Settings, replicas: int, chunk: int, elements: int) -> None:
    need = Estimate(
        replicas=replicas,
        records=-(-settings.steps // settings.record_every) + 1,
        labels=2,
        sampled_metrics=settings.sampled_metrics,
        chunk=chunk,
        elements=elements,
    )
    allowed = int(0.8 * available_memory())
    for bytes_needed, what, advice in (
        (need.training_bytes, f"{chunk:,} replicas at once", "lower seeds or group_size, or choose a smaller env"),
        (need.table_bytes, f"a table of {need.rows:,} rows", f"raise metrics_every ({settings.record_every})"),
    ):
        if bytes_needed > allowed:
            raise ConfigError(
                f"the run needs about {memory_text(bytes_needed)} of memory for {what}; {memory_text(allowed)} may be "
                f"used. {advice[0].upper()}{advice[1:]}"
            )


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
