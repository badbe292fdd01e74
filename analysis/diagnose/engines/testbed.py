"""This project: `log.jsonl` of `testbed finetune`, tables of `simulate`; keys are the canonical names themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.engines.trl import COMMON_KEYS, PLAIN, read_trl
from analysis.diagnose.names import NAMES, Key, KeyTable
from testbed.errors import TestbedError
from testbed.glossary import GLOSSARY
from testbed.registry import parse_call

__all__ = ["TESTBED"]

_OWN = (
    *(Key(name, "reward/mean" if name == "exact/return" else name) for name in sorted(GLOSSARY)),
    *(Key(name, name) for name in NAMES if "/" in name),
)
_KNOWN = {item.key for item in _OWN}

_KEYS = (
    *_OWN,
    *(item for item in COMMON_KEYS if item.key not in _KNOWN and item.name not in {"", "reward/mean"}),
    *(item for item in COMMON_KEYS if item.key not in _KNOWN and item.name == ""),
    Key("replica", ""),
    Key("seed", ""),
    Key("updates", ""),
    Key("objective", ""),
)

_LEVELS = {"gspo": "sequence", "gspo_token": "sequence", "luspo": "sequence"}


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    trainer = {key.removeprefix("trainer."): value for key, value in flat.items() if key.startswith("trainer.")}
    if "objective" in flat:
        _read_objective(str(flat["objective"]), settings)
    if trainer:
        read_trl({key: value for key, value in trainer.items() if "epsilon" not in key}, settings)
        for name, keys in PLAIN.items():
            for key in keys:
                if name not in {"loss", "ratio_level"}:
                    settings.put(name, trainer.get(key), f"trainer.{key}")
    epochs, minibatches = number(flat, "epochs"), number(flat, "minibatches")
    if epochs is not None:
        settings.put("updates_per_rollout", epochs * (minibatches or 1.0), "epochs and minibatches")
    staleness = number(flat, "staleness")
    if staleness is not None:
        settings.put("asynchronous", staleness > 0, "staleness")


def _read_objective(text: str, settings: Settings) -> None:
    name, given = parse_call(text)
    settings.put("loss", name, "objective")
    settings.put("ratio_level", _LEVELS.get(name, "token"), "objective")
    # The objectives need PyTorch, which whoever has no such configuration need not wait for.
    from testbed.objectives import make_objective

    try:
        made = make_objective(text)
    except TestbedError:
        return
    for field in ("clip_low", "clip_high", "dual_clip"):
        value = getattr(made, field, None)
        if isinstance(value, int | float):
            settings.put(field, float(value), f"objective{'' if field in given else ', by default'}")


TESTBED = engine_named(
    Engine(
        name="testbed",
        title="this project",
        table=KeyTable(_KEYS),
        distinctive=("objective", "trainer.max_steps", "warm_start.", "train.source"),
        settings={
            "temperature": ("temperature",),
            "group_size": ("group_size",),
            "learning_rate": ("learning_rate",),
        },
        read=_read,
        updates=("epochs", "minibatches"),
    )
)
