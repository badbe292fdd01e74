"""What can be predicted before anything is run: closed forms, each with its derivation in the docstring.

One file per topic. A file that calls `register(Prediction(...))` is found by being there: `predictions()`
lists every one with its measurement by another route, so that a table of prediction, measurement, error and
tolerance needs no list kept by hand.

Notation shared by all files: softmax policy π = softmax(z), old policy q, ratio r = π/q, advantage A, entropy
H = -Σ π log π in nats, u_a = log π_a + H, K arms, G responses per group. The update weight of a sampled token
is F·A with F = r·X for a gate X, and one step moves the logits by η·F·A·(e_a - π).

>>> from analysis.theory import predictions
>>> predictions()[0].id
'T1'
"""

from __future__ import annotations

from analysis.theory._prediction import Comparison, Measurement, Prediction, register, registry

__all__ = ["Comparison", "Measurement", "Prediction", "predictions", "register"]


def predictions() -> list[Prediction]:
    """Every prediction of this package, by the number of its statement and then by name."""
    return sorted((registry[name] for name in registry.names()), key=lambda item: (int(item.id[1:]), item.name))
