"""Single values far above what came before."""

from __future__ import annotations

import numpy as np

from analysis.diagnose.series import Series

_BEFORE = 24
_FEWEST = 8


def spikes(found: Series, factor: float, least: float) -> np.ndarray:
    """Places whose value exceeds `least`, `factor` times the median of the 24 before, and 8 deviations.

    Deviations are of logarithms, by the median absolute one, which a spike does not move.
    """
    values = np.maximum(np.nan_to_num(found.high, nan=0.0), 1e-12)
    logs = np.log(values)
    padded = np.r_[np.full(_BEFORE, np.nan), logs]
    before = np.lib.stride_tricks.sliding_window_view(padded, _BEFORE)[:-1]
    candidates = np.flatnonzero((values >= least) & (np.arange(len(values)) >= _FEWEST))
    if not len(candidates):
        return candidates
    earlier = before[candidates]
    middle = np.nanmedian(earlier, axis=1)
    spread = np.maximum(1.4826 * np.nanmedian(np.abs(earlier - middle[:, None]), axis=1), 0.05)
    return candidates[logs[candidates] - middle >= np.maximum(np.log(factor), 8 * spread)]


def stays(found: Series, place: int, factor: float) -> bool:
    """Whether the values after a place stay above what came before it."""
    before, after = found.values[max(0, place - _BEFORE) : place], found.values[place + 1 : place + 1 + _BEFORE]
    if len(after) < 3:
        return False
    return bool(np.median(after) >= factor * max(float(np.median(before)), 1e-12))
