"""One file per published objective; every file is discovered, none is listed.

What an author of an objective or a wrapper writes it with is here as well: the classes to derive from, the decorator
that registers it, the checks of hyper-parameters, and the helpers that the equations are written with.

>>> from testbed.objectives import make_objective, objective_names
>>> make_objective("ppo").clip_low
0.2
"""

from __future__ import annotations

from testbed.objectives._base import (
    HardClip,
    Hyper,
    Objective,
    ObjectiveOutput,
    Presets,
    Wrapper,
    check_choice,
    check_flag,
    check_order,
    check_pair,
    check_range,
    choose,
    clamp,
    clipped_surrogate,
    clipped_surrogate_gradient,
    gradient_preserving_gradient,
    gradient_preserving_surrogate,
    make_objective,
    objective,
    registry,
    score_loss,
    straight_through,
    tensor_like,
)

__all__ = [
    "HardClip",
    "Hyper",
    "Objective",
    "ObjectiveOutput",
    "Presets",
    "Wrapper",
    "check_choice",
    "check_flag",
    "check_order",
    "check_pair",
    "check_range",
    "choose",
    "clamp",
    "clipped_surrogate",
    "clipped_surrogate_gradient",
    "gradient_preserving_gradient",
    "gradient_preserving_surrogate",
    "make_objective",
    "objective",
    "objective_names",
    "registry",
    "score_loss",
    "straight_through",
    "tensor_like",
]


def objective_names() -> list[str]:
    """Every registered objective, sorted."""
    return registry.names()
