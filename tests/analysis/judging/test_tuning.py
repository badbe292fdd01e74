"""An equal budget for every arm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest

from analysis.judging import tuning
from analysis.judging.arms import ArmCache
from analysis.judging.claim import Falsifier, StatisticalClaim, Tuning
from analysis.judging.estimands import final
from analysis.judging.run import run_claim
from analysis.judging.tuning import tune
from analysis.trajectories import Trajectories
from tests.analysis.judging.small import small_claim, trajectories

FINAL = {
    ("large", 0.5): [1.0, 2.0, 3.0, 6.0],
    ("large", 2.0): [4.0, 4.0, 5.0, 7.0],
    ("large", 8.0): [0.0, 0.0, 0.0, 0.0],
    ("tiny", 0.5): [3.0, 3.0, 3.0, 3.0],
    ("tiny", 2.0): [2.0, 2.0, 2.0, 2.0],
    ("tiny", 8.0): [9.0, 9.0, 9.0, 9.0],
}
"""What an arm reaches at a learning rate, a number a seed."""
ARMS = {"large": {"objective": "ppo"}, "tiny": {"objective": "reinforce"}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Arms reach what `FINAL` says; returns the seeds and master seeds that were asked for."""
    asked: list[tuple[int, int]] = []

    def run_arms(
        setting: Mapping[str, Any], arms: Mapping[str, Any], seeds: int, seed: int, cache: ArmCache | None
    ) -> dict[str, Trajectories]:
        asked.append((seeds, seed))
        return {
            name: trajectories(exact__return=[[0.0] * seeds, FINAL[name, setting["learning_rate"]]]) for name in arms
        }

    monkeypatch.setattr(tuning, "run_arms", run_arms)
    return asked


def tuned_claim(better: Any = "higher") -> StatisticalClaim:
    return small_claim(
        arms=ARMS,
        falsifier=Falsifier("the other objective", {"large": ARMS["tiny"]}),
        tuning=Tuning((0.5, 2.0, 8.0), final("exact/return"), better=better, seeds=4, master_seed=10_001),
    )


def test_an_arm_gets_the_rate_of_its_best_mean(asked: list[tuple[int, int]]) -> None:
    # Means: large 3, 5, 0 and tiny 3, 2, 9.
    found = tune(tuned_claim(), ARMS)
    assert found.arms == {
        "large": {"objective": "ppo", "learning_rate": 2.0},
        "tiny": {"objective": "reinforce", "learning_rate": 8.0},
    }
    assert found.at_the_edge == (
        "The best learning rate of tiny, 8, is the last of its grid, so a better one may lie beyond.",
    )
    assert asked == [(4, 10_001)] * 6


def test_the_lower_end_can_be_the_better_one(asked: list[tuple[int, int]]) -> None:
    found = tune(tuned_claim("lower"), ARMS)
    assert {name: arm["learning_rate"] for name, arm in found.arms.items()} == {"large": 8.0, "tiny": 2.0}
    assert found.at_the_edge == (
        "The best learning rate of large, 8, is the last of its grid, so a better one may lie beyond.",
    )


def test_the_first_of_a_grid_is_said_to_be_the_first(asked: list[tuple[int, int]]) -> None:
    narrow = dataclasses.replace(tuned_claim("lower"), tuning=Tuning((2.0, 0.5), final("exact/return"), "lower", 4))
    assert tune(narrow, {"tiny": ARMS["tiny"]}).at_the_edge == (
        "The best learning rate of tiny, 2, is the first of its grid, so a better one may lie beyond.",
    )


def test_error_bars_are_standard_errors_of_the_mean(asked: list[tuple[int, int]]) -> None:
    (figure,) = tune(tuned_claim(), ARMS).sensitivity
    large = next(series for series in figure["series"] if series["label"] == "large")
    # log2 of 0.5, 2 and 8.
    assert large["x"] == [-1.0, 1.0, 3.0]
    assert large["mean"] == [3.0, 5.0, 0.0]
    # Of 1, 2, 3, 6 the deviations are -2, -1, 0, 3: variance 14/3; of 4, 4, 5, 7 -1, -1, 0, 2: variance 6/3. Over √4.
    errors = [1.96 * math.sqrt(14 / 3) / 2, 1.96 * math.sqrt(2) / 2, 0.0]
    assert large["high"] == pytest.approx([mean + error for mean, error in zip([3, 5, 0], errors, strict=True)])
    assert large["low"] == pytest.approx([mean - error for mean, error in zip([3, 5, 0], errors, strict=True)])
    assert figure["y_label"] == "exact/return after the last step"


def test_without_tuning_the_arms_are_as_they_are(asked: list[tuple[int, int]]) -> None:
    found = tune(small_claim(), ARMS)
    assert (found.arms, found.sensitivity, found.at_the_edge) == (ARMS, (), ())
    assert asked == []


def test_a_run_says_what_its_tuning_chose() -> None:
    claim = small_claim(
        arms=ARMS,
        falsifier=Falsifier("the other objective", {"large": {"objective": "reinforce"}}),
        tuning=Tuning((0.01, 4.0), final("exact/return"), seeds=4),
    )
    result = run_claim(claim)
    assert (
        "The best learning rate of large, 4, is the last of its grid, so a better one may lie beyond." in result.notes
    )
    assert result.setting["arm large"] == "objective=ppo, learning_rate=4.0"
    assert result.curves[-1]["title"] == "Sensitivity to the learning rate, on tuning seeds"
