"""p-values of many claims, adjusted."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from analysis.statistics.types import FloatArray
from testbed.errors import ConfigError

__all__ = [
    "benjamini_hochberg",
    "holm",
]


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's adjusted p-values: strong control of any false claim inside one family.

        adjusted₍ᵢ₎ = min(1, max_{j≤i} (m - j + 1) p₍ⱼ₎)

    Args:
        p_values: `(m,)` in [0, 1].

    Returns:
        `(m,)` in the order given; a claim stands at α iff its adjusted value is at most α.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = _probabilities(p_values)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * (values.size - np.arange(values.size))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> FloatArray:
    """Benjamini and Hochberg's adjusted p-values: control of the share of false claims in a catalogue.

    Args:
        p_values: `(m,)` in [0, 1].

    Returns:
        `(m,)` in the order given.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    return np.asarray(scipy.stats.false_discovery_control(_probabilities(p_values), method="bh"), dtype=np.float64)


def _probabilities(p_values: ArrayLike) -> FloatArray:
    array = np.asarray(p_values, dtype=np.float64)
    # Written so that NaN fails it too.
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise ConfigError(f"p_values has shape {array.shape}; expected a non-empty (m,) with every entry in [0, 1]")
    return array
