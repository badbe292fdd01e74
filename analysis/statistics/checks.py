"""What may be passed: one finite number per seed, a level, a direction with its threshold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.types import MINIMUM_SEEDS, FloatArray
from testbed.errors import ConfigError

__all__ = [
    "check_direction",
    "check_level",
    "condition_values",
    "in_words",
    "seed_values",
]


def in_words(seeds: int) -> str:
    """'1 seed', '2 seeds'."""
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


def check_level(level: float) -> None:
    """Refuse a level outside (0, 1)."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected a two-sided confidence level in (0, 1), such as 0.90")


def check_direction(direction: str, threshold: float) -> None:
    """Refuse an unknown direction, and a threshold that makes no sense with it."""
    if direction not in ("greater", "less", "equivalent"):
        raise ConfigError(f"direction is {direction!r}; expected 'greater', 'less' or 'equivalent'")
    if not math.isfinite(threshold):
        raise ConfigError(f"threshold is {threshold}; expected a finite number in the estimand's unit")
    if direction == "equivalent" and threshold <= 0:
        raise ConfigError(
            f"threshold is {threshold:g}; 'equivalent' needs a positive half-width: the largest difference "
            "that would still count as none"
        )


def seed_values(values: ArrayLike, minimum: int = MINIMUM_SEEDS) -> FloatArray:
    """The values as `(n,)`, finite and at least `minimum` of them."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ConfigError(f"values has shape {array.shape}; expected (seeds,), one number per seed")
    _check_finite(array)
    if array.size < minimum:
        raise ConfigError(
            f"values holds {in_words(array.size)}; an interval needs at least {minimum}. "
            f"Run {minimum - array.size} more"
        )
    return array


def condition_values(values: ArrayLike, direction: str) -> FloatArray:
    """The values as `(n, conditions)`, finite and of at least two conditions."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ConfigError(f"values has shape {table.shape}; expected (seeds, conditions) with at least 2 conditions")
    if direction not in ("increasing", "decreasing"):
        raise ConfigError(f"direction is {direction!r}; expected 'increasing' or 'decreasing'")
    _check_finite(table)
    return table


def _check_finite(array: FloatArray) -> None:
    broken = int((~np.isfinite(array)).sum())
    if broken:
        raise ConfigError(
            f"{broken} of {array.size} values are NaN or infinite; expected one finite number per seed. "
            "Censor unfinished runs with survival, or leave the seed out of every arm and report it"
        )
