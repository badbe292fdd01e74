"""What a training engine is to the doctor: its keys, its settings, its defaults, and how to make it log more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.diagnose.names import KeyTable
from testbed.registry import Registry

__all__ = ["SETTINGS", "Engine", "Settings", "engine_named", "engines", "number", "whole"]

SETTINGS: dict[str, str] = {
    "loss": "which objective is trained",
    "ratio_level": "whether the ratio is a token's or a sequence's",
    "clip_low": "lower bound of the ratio, as an offset from 1",
    "clip_high": "upper bound of the ratio, as an offset from 1",
    "weight_cap": "absolute ceiling of the weight (CISPO)",
    "dual_clip": "ceiling of the ratio for negative advantages",
    "updates_per_rollout": "optimiser steps per rollout",
    "temperature": "sampling temperature",
    "top_k": "tokens kept by top-k, 0: all",
    "top_p": "mass kept by top-p",
    "min_p": "smallest probability kept, relative to the largest",
    "beta": "coefficient of the divergence from the reference",
    "entropy_coefficient": "coefficient of an entropy bonus",
    "mask_truncated": "whether truncated responses are left out of the loss",
    "max_length": "longest response allowed, in tokens",
    "group_size": "responses per prompt",
    "standardise": "what advantages are divided by: group, batch or none",
    "correction": "how a mismatch between sampler and trainer is corrected",
    "asynchronous": "whether responses may come from an older policy",
    "reduction": "how token losses are averaged",
    "learning_rate": "step size",
    "micro_batch": "responses per forward pass",
    "mini_batch": "responses per optimiser step",
    "dynamic_micro_batch": "whether micro-batches are cut by tokens",
    "gpus": "accelerators",
}
"""Canonical settings and what they are."""


@dataclass
class Settings:
    """Canonical settings read from one configuration.

    Attributes:
        values: name to value, only what is known.
        sources: name to where it comes from, a key of the configuration or an engine's default.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: Any, source: str) -> None:
        """Set a value unless it is None or already known."""
        if value is not None and name not in self.values:
            self.values[name] = value
            self.sources[name] = source


Reading = Callable[[Mapping[str, Any], Settings], None]


@dataclass(frozen=True)
class Engine:
    """One training engine.

    Attributes:
        name: short name.
        title: name and version the table was made for.
        table: its keys.
        distinctive: beginnings of configuration keys that no other engine has.
        settings: canonical setting to the configuration keys that give it directly, the first known one counts.
        read: what is computed from several keys, and defaults that are certain once the configuration is the engine's.
        logging: canonical name to the setting that makes the engine log it.
        updates: configuration keys that fix the updates per rollout.
    """

    name: str
    title: str
    table: KeyTable
    distinctive: tuple[str, ...] = ()
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read: Reading = lambda flat, settings: None
    logging: Mapping[str, str] = field(default_factory=dict)
    updates: tuple[str, ...] = ()


engines: Registry[Engine] = Registry("engine", "analysis.diagnose.engines")
"""Every engine; a file of `analysis.diagnose.engines` each."""


def engine_named(engine: Engine) -> Engine:
    """File an engine under its name."""
    engines.register(engine.name)(engine)
    return engine


def number(flat: Mapping[str, Any], *keys: str) -> float | None:
    """The first of the keys whose value is a number, or a text that is one."""
    for key in keys:
        value = flat.get(key)
        if isinstance(value, bool):
            continue
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                continue
        if isinstance(value, int | float) and value == value:
            return float(value)
    return None


def whole(flat: Mapping[str, Any], *keys: str) -> int | None:
    """The first of the keys whose value is a whole number."""
    found = number(flat, *keys)
    return int(found) if found is not None and found == int(found) else None
