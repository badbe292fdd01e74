"""Toy environments whose every answer is known exactly.

`make_spec(name)` gives the automaton of an environment, `exact` solves it, and importing this package registers
each one with Gymnasium as `testbed/<name>`. See `envs.catalogue` for what makes a file of this package an environment.
"""

from __future__ import annotations

from envs import exact
from envs.catalogue import env_names, make_spec

__all__ = ["env_names", "exact", "make_spec"]

# Gymnasium can only offer ids it has been told of, so the files of this package are read now.
env_names()
