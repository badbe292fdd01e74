"""One scale for the many ways engines measure how a sampler differs from the trainer.

If log p_trainer - log p_sampler of a sampled token is normal with standard deviation s, then its mean absolute value is
0.8·s, its k3 divergence s²/2, and the mean of exp |·| is 1 + 0.8·s + s²/2. Every measure is turned into that s.
"""

from __future__ import annotations

import numpy as np

from analysis.diagnose.rule import Case, Window, window_of
from analysis.diagnose.series import Series

WARNING, PROBLEM = 0.0625, 0.15
"""s at which the mean |log-ratio| is 0.05 and the mean of exp |·| 1.05, NeMo-RL's limit; and 0.12, with k3 0.011."""

SCALES = {
    "sampler/log_abs_mean": lambda x: x / 0.8,
    "sampler/kl_k3": lambda x: np.sqrt(2 * np.maximum(x, 0)),
    "sampler/error": lambda x: np.sqrt(0.64 + 2 * np.maximum(x - 1, 0)) - 0.8,
    "sampler/probability_abs_mean": lambda x: 2.5 * x,
    "kl/sampler": lambda x: np.sqrt(2 * np.abs(x)),
    "sampler/probability_correlation": lambda x: 0.6 * np.sqrt(np.maximum(1 - x, 0)),
}


def measures(case: Case) -> list[tuple[str, Series, Series]]:
    """Name, what was logged, and the same on the common scale."""
    found = []
    for name, item in case.named(*SCALES):
        scaled = Series.of(item.key, item.steps, SCALES[name](item.values))
        found.append((name, item, scaled))
    return found


def growth(scaled: Series) -> Window | None:
    """Both ends where the measure at least doubles, that is a change, and it ends at more than 0.02."""
    if len(scaled) < 8:
        return None
    window = window_of(scaled)
    rises = window.correlation > 0.3 and (window.change is not None or window.correlation >= 0.8)
    return window if rises and window.last >= 0.02 and window.last >= 2 * window.first else None
