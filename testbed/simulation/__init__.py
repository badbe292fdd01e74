"""Vectorised training on toys: every seed and hyper-parameter setting is a replica on the leading dimension."""

from __future__ import annotations

from testbed.simulation.run import Run
from testbed.simulation.settings import Settings
from testbed.simulation.simulate import SimulationWarning, simulate

__all__ = ["Run", "Settings", "SimulationWarning", "simulate"]
