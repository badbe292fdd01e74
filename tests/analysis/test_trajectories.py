"""Run tables as arrays, and as curves."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.trajectories import by_objective, curve
from testbed.errors import ConfigError
from tests.analysis.judging.small import trajectories

# Two seeds over four steps; row 0 is the initial policy, where sampled metrics are missing.
RUN = trajectories(
    exact__entropy=[[4.0, 4.0], [3.0, 2.0], [2.0, 1.0], [0.0, 1.0]],
    exact__return=[[0.0, 0.0], [0.5, 0.2], [0.75, 0.4], [1.0, 0.6]],
    clip__fraction=[[math.nan, math.nan], [0.1, 0.0], [0.2, math.nan], [0.3, 0.4]],
)


def test_a_metric_the_run_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no metric 'exact/tv_step'"):
        RUN["exact/tv_step"]


def test_curves_leave_out_what_is_missing() -> None:
    drawn = curve("clip/fraction", {"arm": RUN})
    # Step 0 has no data, step 2 none for the second seed.
    assert drawn["series"][0]["x"] == [1, 3]
    assert drawn["series"][0]["mean"] == pytest.approx([0.05, 0.35])
    # 1.96 · sd/√2 with sd = |0.1 - 0|/√2.
    assert drawn["series"][0]["high"][0] == pytest.approx(0.05 + 1.96 * 0.05)
    assert curve("exact/tv_step", {"arm": RUN})["series"] == []


def test_by_objective_keeps_the_order_of_appearance() -> None:
    table = pd.DataFrame(
        {"objective": ["z", "a"], "replica": [0, 1], "seed": [0, 0], "step": [0, 0], "updates": [0, 0], "m": [1.0, 2.0]}
    )
    assert list(by_objective(table)) == ["z", "a"]
