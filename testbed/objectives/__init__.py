"""One file per published objective; every file is discovered, none is listed.

>>> from testbed.objectives import make_objective, objective_names
>>> make_objective("ppo").clip_low
0.2
"""

from __future__ import annotations

from testbed.objectives._base import Hyper, Objective, ObjectiveOutput, Wrapper, make_objective, registry

__all__ = ["Hyper", "Objective", "ObjectiveOutput", "Wrapper", "make_objective", "objective_names"]


def objective_names() -> list[str]:
    """Every registered objective, sorted."""
    return registry.names()
