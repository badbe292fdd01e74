"""Single values far above what came before."""

from __future__ import annotations

import numpy as np

from analysis.diagnose.series import Series

_BEFORE = 24


def spikes(found: Series, factor: float, least: float) -> np.ndarray:
    """Places whose value exceeds `least`, `factor` times the median of the 24 before, and 8 deviations.

    Deviations are of logarithms, by the median absolute one, which a spike does not move.
    """
    values = np.maximum(np.nan_to_num(found.high, nan=0.0), 1e-12)
    logs = np.log(values)
    hit = []
    for place in np.flatnonzero(values >= least):
        before = logs[max(0, place - _BEFORE) : place]
        if len(before) < 8:
            continue
        middle = float(np.median(before))
        spread = max(1.4826 * float(np.median(np.abs(before - middle))), 0.05)
        if logs[place] - middle >= max(np.log(factor), 8 * spread):
            hit.append(int(place))
    return np.array(hit, dtype=int)


def stays(found: Series, place: int, factor: float) -> bool:
    """Whether the values after a place stay above what came before it."""
    before, after = found.values[max(0, place - _BEFORE) : place], found.values[place + 1 : place + 1 + _BEFORE]
    if len(after) < 3:
        return False
    return bool(np.median(after) >= factor * max(float(np.median(before)), 1e-12))
