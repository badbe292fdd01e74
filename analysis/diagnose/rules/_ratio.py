"""What the rules on the ratio share."""

from __future__ import annotations

import numpy as np

from analysis.diagnose.rule import Case
from analysis.diagnose.series import Series

CLIPPED = (
    "clip/fraction",
    "clip/high_fraction",
    "clip/low_fraction",
    "clip/ceiling_fraction",
    "band/outside_fraction",
    "band/low_fraction",
    "band/high_fraction",
)
RATIOS = ("ratio/mean", "ratio/max", "ratio/min", "kl/old", "kl/old_k2", "kl/old_k3")
_AT_ONE = {"ratio/mean": 1.0, "ratio/max": 1.0, "ratio/min": 1.0}


def all_at(item: Series, value: float, tolerance: float = 0.0) -> bool:
    """Whether a curve never leaves a value."""
    return bool(np.all(np.abs(item.low - value) <= tolerance) and np.all(np.abs(item.high - value) <= tolerance))


def ratio_is_one(case: Case) -> bool | None:
    """Whether everything logged of the ratio is at its value for ratio 1, to rounding; `None`: nothing is logged."""
    found = [(name, item) for name, item in case.named(*RATIOS) if len(item) >= 5]
    if not found:
        return None
    return all(all_at(item, _AT_ONE.get(name, 0.0), 1e-6) for name, item in found)


def nothing_to_learn(case: Case) -> bool:
    """Whether the gradient is 0 throughout, so that the ratio stays 1 whatever is compared."""
    norm = case.finite("gradient/norm")
    if norm is not None:
        return bool(np.median(norm.values) <= 1e-12)
    dead = case.finite("group/zero_variance_fraction")
    return dead is not None and bool(np.median(dead.values) >= 1)
