"""Canonical rows under an engine's keys, in the engine's container."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.diagnose.engine import Engine, engines
from analysis.diagnose.planted.base import Rows
from analysis.diagnose.readers.tensorboard_events import masked_checksum

__all__ = ["CONTAINERS", "configuration", "event_file", "keyed", "write"]

_WILD = {"env": "math", "domain": "math", "set": "gsm8k", "k": "8", "role": "solver", "agg": "token", "i": "0"}


_LEFT_OUT = {
    # Only AsyncGRPO logs these, and another divergence with them.
    "trl": {"ratio/mean", "sampler/rejected_fraction", "staleness/mean"},
}


def _key(engine: Engine, name: str) -> tuple[str, float] | None:
    for entry in engine.table.keys:
        if entry.name == name:
            key = entry.key
            for wild, word in _WILD.items():
                key = key.replace(f"<{wild}>", word)
            if "<" not in key:
                return key, entry.sign
    return None


def keyed(engine_name: str, rows: Rows) -> list[dict[str, float]]:
    """The rows as the engine would log them; what it does not log is left out."""
    engine = engines[engine_name]
    columns = {}
    for name, values in rows.items():
        found = None if name == "step" or name in _LEFT_OUT.get(engine_name, ()) else _key(engine, name)
        if found is not None:
            columns[found[0]] = values * found[1]
    made = []
    for place, step in enumerate(rows["step"]):
        row: dict[str, float] = {"step": int(step)}
        for key, values in columns.items():
            value = float(values[place])
            if math.isnan(value) and not _is_core(key):
                continue
            row[key] = value
        made.append(row)
    return made


def _is_core(key: str) -> bool:
    return "loss" in key or "grad" in key


def configuration(engine_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical settings under the engine's keys, flat and dotted."""
    engine = engines[engine_name]
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        keys = engine.settings.get(name)
        if name == "updates_per_rollout":
            flat |= _updates(engine_name, int(value))
        elif name == "weight_cap":
            flat["epsilon_high"] = value
        elif name in {"clip_low", "clip_high"} and engine_name in {"trl", "ms-swift"}:
            flat["epsilon" if name == "clip_low" else "epsilon_high"] = value
        elif name in {"clip_low", "clip_high"} and engine_name == "verl":
            flat[f"actor_rollout_ref.actor.clip_ratio_{name.removeprefix('clip_')}"] = value
        elif name in {"clip_low", "clip_high"} and engine_name == "roll":
            flat[f"pg_{name}"] = value
        elif name == "ratio_level" and engine_name == "roll":
            flat["importance_sampling"] = "seq" if value == "sequence" else "token"
        elif name == "micro_batch" and engine_name == "verl":
            flat["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] = value
        elif name == "mini_batch" and engine_name == "verl":
            flat["actor_rollout_ref.actor.ppo_mini_batch_size"] = value
        elif name == "asynchronous":
            flat |= _asynchronous(engine_name)
        elif keys:
            flat[keys[0]] = _loss_name(engine_name, value) if name == "loss" else value
    return {key: value for key, value in flat.items() if value is not None}


def _updates(engine: str, updates: int) -> dict[str, Any]:
    if engine in {"trl", "ms-swift"}:
        return {"num_iterations": 1, "steps_per_generation": 4 * updates, "gradient_accumulation_steps": 4}
    if engine == "verl":
        return {"data.train_batch_size": 128 * updates, "actor_rollout_ref.actor.ppo_mini_batch_size": 128}
    if engine == "openrlhf":
        return {
            "rollout.batch_size": 32 * updates,
            "rollout.n_samples_per_prompt": 4,
            "train.batch_size": 128,
            "train.max_epochs": 1,
        }
    if engine == "slime":
        return {"num_steps_per_rollout": updates}
    if engine == "skyrl":
        return {"trainer.train_batch_size": 64 * updates, "trainer.policy_mini_batch_size": 64}
    if engine == "nemo-rl":
        return {
            "grpo.num_prompts_per_step": 8 * updates,
            "grpo.num_generations_per_prompt": 16,
            "policy.train_global_batch_size": 128,
        }
    if engine == "areal":
        return {"actor.ppo_n_minibatches": updates}
    if engine == "roll":
        return {
            "rollout_batch_size": 8 * updates,
            "num_return_sequences_in_group": 16,
            "actor_train.training_args.per_device_train_batch_size": 4,
            "actor_train.training_args.gradient_accumulation_steps": 4,
            "actor_train.world_size": 8,
            "ppo_epochs": 1,
        }
    if engine == "testbed":
        return {"epochs": updates, "minibatches": 1}
    return {"num_substeps": updates} if engine == "tinker" else {}


def _asynchronous(engine: str) -> dict[str, Any]:
    keys = {
        "verl": "algorithm.rollout_correction.bypass_mode",
        "openrlhf": "train.async_enable",
        "nemo-rl": "grpo.async_grpo.enabled",
        "areal": "rollout.max_head_offpolicyness",
        "roll": "async_generation_ratio",
        "prime-rl": "max_async_level",
    }
    if engine == "testbed":
        return {"staleness": 2}
    return {keys[engine]: True if engine in {"verl", "openrlhf", "nemo-rl"} else 2} if engine in keys else {}


def _loss_name(engine: str, loss: str) -> Any:
    if engine == "trl":
        return {"gspo": "grpo", "ppo": "bnpo", "gppo": "dapo", "dcpo": "dapo", "ce_gppo": "dapo"}.get(loss, loss)
    if engine == "verl":
        return {"grpo": "vanilla", "dapo": "vanilla", "ppo": "vanilla"}.get(loss, loss)
    return loss


# -- containers ------------------------------------------------------------------------------------------------------


def _trainer_state(path: Path, rows: list[dict[str, float]]) -> Path:
    content = {"global_step": int(rows[-1]["step"]), "logging_steps": 1, "log_history": rows}
    return _text(path / "trainer_state.json", json.dumps(content, indent=1))


def _json_lines(path: Path, rows: list[dict[str, float]]) -> Path:
    return _text(path / "log.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n")


def _swift_lines(path: Path, rows: list[dict[str, float]]) -> Path:
    last = int(rows[-1]["step"])
    lines = [
        json.dumps(
            {key: value for key, value in row.items() if key != "step"}
            | {"global_step/max_steps": f"{row['step']}/{last}"}
        )
        for row in rows
    ]
    return _text(path / "logging.jsonl", "\n".join(lines) + "\n")


def _verl_lines(path: Path, rows: list[dict[str, float]]) -> Path:
    lines = []
    for row in rows:
        data = {key: (value if math.isfinite(value) else None) for key, value in row.items() if key != "step"}
        lines.append(json.dumps({"step": row["step"], "data": data}))
    return _text(path / "experiment.jsonl", "\n".join(lines) + "\n")


def _verl_console(path: Path, rows: list[dict[str, float]]) -> Path:
    lines = []
    for row in rows:
        parts = [f"{key}:np.float64({value})" for key, value in row.items() if key != "step"]
        lines.append(f"\x1b[36m(TaskRunner pid=4711)\x1b[0m step:{row['step']} - {' - '.join(parts)}")
    return _text(path / "run.log", "\n".join(["some banner", *lines]) + "\n")


def _slime_lines(path: Path, rows: list[dict[str, float]]) -> Path:
    lines = []
    for row in rows:
        for axis in ("rollout", "train", "eval"):
            part = {key: value for key, value in row.items() if key.startswith(f"{axis}/")}
            if part:
                word = "step" if axis == "train" else axis
                lines.append(f"[2026-11-28 10:00:00] logger.py:12 - {word} {row['step']}: {part!r}")
    return _text(path / "slime.log", "\n".join(lines) + "\n")


def _csv(path: Path, rows: list[dict[str, float]]) -> Path:
    import pandas as pd

    frame = pd.DataFrame(rows).rename(columns={"step": "_step"})
    target = path / "history.csv"
    frame.to_csv(target, index=False)
    return target


def _parquet(path: Path, rows: list[dict[str, float]]) -> Path:
    import pandas as pd

    target = path / "history.parquet"
    pd.DataFrame(rows).rename(columns={"step": "_step"}).to_parquet(target)
    return target


def _tensorboard(path: Path, rows: list[dict[str, float]]) -> Path:
    return event_file(path / "events.out.tfevents.1700000000.host.1.0", rows)


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def event_file(path: Path, rows: list[dict[str, float]]) -> Path:
    """Rows as a TensorBoard event file: an event a value, as SummaryWriter.add_scalar writes them."""
    with path.open("wb") as file:
        _record(file, b"\x09" + struct.pack("<d", 1.7e9) + b"\x1a\x0dbrain.Event:2")
        for number, row in enumerate(rows):
            clock = b"\x09" + struct.pack("<d", 1.7e9 + 45.0 * number)
            for key, value in row.items():
                if key == "step":
                    continue
                name = key.encode()
                entry = b"\x0a" + _varint(len(name)) + name + b"\x15" + struct.pack("<f", np.float32(value))
                summary = b"\x0a" + _varint(len(entry)) + entry
                _record(file, clock + b"\x10" + _varint(int(row["step"])) + b"\x2a" + _varint(len(summary)) + summary)
    return path


def _record(file: Any, data: bytes) -> None:
    length = struct.pack("<Q", len(data))
    file.write(length + struct.pack("<I", masked_checksum(length)))
    file.write(data + struct.pack("<I", masked_checksum(data)))


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _prefixed(writer: Callable[[Path, list[dict[str, float]]], Path], prefix: str):
    def write_prefixed(path: Path, rows: list[dict[str, float]]) -> Path:
        return writer(path, [{k if k == "step" else f"{prefix}{k}": v for k, v in row.items()} for row in rows])

    return write_prefixed


CONTAINERS: dict[str, tuple[Callable[[Path, list[dict[str, float]]], Path], ...]] = {
    "trl": (_trainer_state, _prefixed(_tensorboard, "train/"), _prefixed(_csv, "train/")),
    "ms-swift": (_swift_lines,),
    "verl": (_verl_lines, _verl_console, _tensorboard),
    "openrlhf": (_prefixed(_tensorboard, "train/"), _prefixed(_csv, "train/")),
    "slime": (_slime_lines, _tensorboard),
    "skyrl": (_csv, _parquet, _tensorboard),
    "prime-rl": (_json_lines,),
    "nemo-rl": (_prefixed(_tensorboard, "train/"), _prefixed(_json_lines, "train/")),
    "areal": (_tensorboard, _parquet),
    "roll": (_json_lines, _tensorboard),
    "tinker": (_json_lines,),
    "testbed": (_json_lines,),
}
"""Engine to the containers it writes."""


def write(folder: Path, engine: str, rows: Rows, settings: Mapping[str, Any], container: int) -> tuple[Path, Path]:
    """Write log and configuration; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    writers = CONTAINERS[engine]
    log = writers[container % len(writers)](folder, keyed(engine, rows))
    config = _text(folder / "given.json", json.dumps(configuration(engine, settings), indent=1))
    return log, config
