"""A toy that was written down: replayed shares are the run's own, κ is exact, and the run itself does not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.replay import replay
from testbed.errors import ConfigError, RunExistsError
from testbed.records import read_record
from testbed.simulation import simulate

SETTINGS = {"seeds": 3, "steps": 4, "group_size": 8, "epochs": 2, "learning_rate": 60.0}
SHARES = (
    "clip/fraction",
    "clip/high_fraction",
    "clip/low_fraction",
    "advantage/nonzero_fraction",
    "ratio/one_fraction",
)


@pytest.mark.parametrize(
    ("objective", "env", "more"),
    [
        ("dapo", "RareArm-v1", {}),
        ("erc(base=dapo)", "ModularSum-v1(length=3,vocabulary=4,modulus=2,prompts=2)", {}),
        ("ppo", "VariableLength-v1", {"mismatch": 0.1}),
        ("dcpo", "RareArm-v1", {"staleness": 1}),
    ],
)
def test_replayed_shares_are_the_runs_own(tmp_path: Path, objective: str, env: str, more: dict[str, float]) -> None:
    # Two updates a rollout: the run leaves the first one out where all its ratios are 1, so that its share is that of
    # the second. A stale rollout has ratios in both; there the mean of two is compared.
    run = simulate(objective, env, **SETTINGS, **more, record=tmp_path / "record")
    own = run.table[run.table["step"] > 0].set_index(["step", "replica"])
    table = replay(tmp_path / "record", [objective]).table
    updates = table if more.get("staleness") else table[table["update"] == 1]
    found = [column for column in run.table if column in SHARES or column.startswith(("erc/", "dcpo/"))]
    assert len(found) > 3
    for name in found:
        expected = own[name].to_numpy()
        parts = [rows.set_index(["step", "replica"])[name] for _, rows in updates.groupby("update")]
        sums = sum(np.float32(part.reindex(own.index)) for part in parts)
        assert np.array_equal(sums / np.float32(len(parts)), np.float32(expected), equal_nan=True), name
    if not more.get("staleness"):
        assert (table[table["update"] == 0]["stopped"] == 0).all()
    assert own["clip/fraction"].max() > 0 or objective.startswith("erc")


def test_the_run_does_not_change(tmp_path: Path) -> None:
    for model in ("tabular", "transformer(width=8,layers=1,pretraining=5)"):
        plain = simulate("dapo", "Copy-v1(length=2,vocabulary=3)", model, **SETTINGS, minibatches=2)
        written = simulate(
            "dapo", "Copy-v1(length=2,vocabulary=3)", model, **SETTINGS, minibatches=2, record=tmp_path / model[:3]
        )
        pd.testing.assert_frame_equal(plain.table, written.table, check_exact=True)


@pytest.mark.parametrize("model", ["tabular", "transformer(width=8,layers=1,pretraining=5)"])
def test_kappas_are_those_of_the_policy(tmp_path: Path, model: str) -> None:
    # In the first update the policy is the initial one; every prompt of this bandit is one state.
    simulate("dapo", "NullBandit-v1(arms=5,contexts=2)", model, seeds=2, steps=1, record=tmp_path / "record")
    for update in read_record(tmp_path / "record").updates():
        numbers = update.numbers
        assert np.all(numbers["kappas"] > 0)
        if update.update == 0:
            np.testing.assert_array_equal(numbers["kappas"], numbers["old_kappas"])
            # One state per prompt: entropy and κ are the same for all of its responses.
            for prompt in ("0", "1"):
                assert len(set(numbers["kappas"][update.prompts == prompt].tolist())) == 1
            probabilities = dict(zip(update.prompts.tolist(), np.exp(numbers["log_probs"]), strict=True))
            assert len(probabilities) == 2
    if model == "tabular":
        initial = torch.tensor([[0.5, 0.25, 0.25]]).log()
        simulate(
            "dapo", "NullBandit-v1(arms=3,contexts=1)", seeds=1, steps=1, initial=initial, record=tmp_path / "known"
        )
        first = next(read_record(tmp_path / "known").updates())
        # κ = log 2/16, H = 1.5·log 2; see the test of `token_statistics`.
        np.testing.assert_allclose(first.numbers["kappas"], np.log(2) / 16, rtol=1e-6)
        np.testing.assert_allclose(first.numbers["entropies"], 1.5 * np.log(2), rtol=1e-6)


def test_responses_are_numbered_within_the_rollout(tmp_path: Path) -> None:
    simulate("dapo", "RareArm-v1(contexts=2)", **SETTINGS, minibatches=2, record=tmp_path / "record")
    rollout = [
        update for update in read_record(tmp_path / "record").updates() if update.step == 1 and not update.replica
    ]
    assert [update.update for update in rollout] == [0, 1, 2, 3]
    assert rollout[0].responses.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert rollout[1].responses.tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    assert rollout[0].prompts.tolist() == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize("objective", ["clip_v(mu=0.5,fraction=0.2)", "clip_b"])
def test_objectives_that_read_the_old_policy_alone(objective: str) -> None:
    table = simulate(objective, "RareArm-v1", **SETTINGS).table
    assert table["exact/return"].notna().all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"compile": True}, "compile is on and a record is asked for"),
        ({"objective": ["dapo", "grpo"]}, "there are 2 objectives; a record is of one"),
    ],
)
def test_what_cannot_be_written_down(tmp_path: Path, more: dict[str, object], message: str) -> None:
    given = {"objective": "dapo", "env": "RareArm-v1", **SETTINGS, **more}
    with pytest.raises(ConfigError, match=message):
        simulate(**given, record=tmp_path / "record")


def test_kappa_of_several_writers() -> None:
    with pytest.raises(ConfigError, match="clip_v reads κ of the policy that wrote a token"):
        simulate("clip_v", "ModularSum-v1", **SETTINGS, partial=2)


def test_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(RunExistsError, match="already holds something"):
        simulate("dapo", "RareArm-v1", **SETTINGS, record=tmp_path)
