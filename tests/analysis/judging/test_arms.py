from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.judging import arms
from analysis.judging.arms import ArmCache, lean, run_arms

SETTING: dict[str, Any] = {
    "env": "RareArm-v1(arms=8,contexts=2,rare_probability=0.1)",
    "steps": 4,
    "group_size": 8,
    "epochs": 2,
    "learning_rate": 4.0,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    simulate = arms.simulate

    def counted(**arguments: Any) -> Any:
        seen.append(arguments)
        return simulate(**arguments)

    monkeypatch.setattr(arms, "simulate", counted)
    return seen


def test_a_finished_arm_is_not_run_again(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    cache, arguments = ArmCache(tmp_path), SETTING | {"objective": "ppo"}
    first = cache.table(arguments, 6, 0)
    pd.testing.assert_frame_equal(cache.table(arguments, 6, 0), first)
    # Fewer seeds are the first of the same, as if simulated alone.
    fewer = cache.table(arguments, 3, 0)
    assert len(calls) == 1
    alone = ArmCache(tmp_path / "other")
    (tmp_path / "other").mkdir()
    pd.testing.assert_frame_equal(
        fewer.reset_index(drop=True), alone.table(arguments, 3, 0).reset_index(drop=True), check_exact=True
    )


def test_more_seeds_another_seed_or_another_setting_are_run(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    cache, arguments = ArmCache(tmp_path), SETTING | {"objective": "ppo"}
    cache.table(arguments, 3, 0)
    for other in (arguments | {"steps": 5}, arguments | {"objective": "dapo"}):
        cache.table(other, 3, 0)
    cache.table(arguments, 4, 0)
    cache.table(arguments, 3, 1)
    assert len(calls) == 5
    # The four seeds took the place of the three.
    cache.table(arguments, 4, 0)
    assert len(calls) == 5


def test_a_table_with_all_metrics_serves_whoever_needs_the_exact_ones(
    tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    cache, arguments = ArmCache(tmp_path), SETTING | {"objective": "ppo"}
    cache.table(arguments | {"sampled_metrics": False}, 3, 0)
    assert "clip/fraction" not in cache.table(arguments | {"sampled_metrics": False}, 3, 0)
    assert "clip/fraction" in cache.table(arguments, 3, 0)
    assert "clip/fraction" in cache.table(arguments | {"sampled_metrics": False}, 3, 0)
    assert len(calls) == 2


def test_exact_metrics_do_not_depend_on_measuring_the_sampled_ones() -> None:
    full, thin = (
        run_arms(SETTING | {"sampled_metrics": sampled}, {"a": {"objective": "ppo"}}, 4, 0)["a"]
        for sampled in (True, False)
    )
    for metric in ("exact/return", "exact/entropy", "exact/kl_step"):
        assert (full[metric] == thin[metric])[1:].all()


@pytest.mark.parametrize(
    ("description", "sampled"),
    [
        ("[a] - [b] of: exact/entropy where exact/return first reaches 0.9", False),
        ("mean of clip/fraction over the steps", None),
        ("exact/return after the last step, and ratio/max", None),
        ("entropy spent in the first twelfth", None),
    ],
)
def test_sampled_batches_are_measured_where_a_description_names_them(description: str, sampled: bool | None) -> None:
    assert lean(SETTING, description).get("sampled_metrics") is sampled
