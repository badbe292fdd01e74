"""Vectorised training on toys: every seed and hyper-parameter setting is a replica on the leading dimension."""

from __future__ import annotations

from testbed.simulation.run import Run
from testbed.simulation.settings import Settings
from testbed.simulation.shards import merge, run_sweep
from testbed.simulation.simulate import SimulationWarning, simulate
from testbed.simulation.sweep import Sweep

__all__ = ["Run", "Settings", "SimulationWarning", "Sweep", "merge", "run_sweep", "simulate"]
