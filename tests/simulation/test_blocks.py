"""A block's tables, numbers and rows are those of its replicas, whoever shares it."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch

from envs import make_spec
from envs.catalogue import Environment, make_environment
from testbed.objectives import make_objective
from testbed.simulation import Settings, simulate
from testbed.simulation.blocks import Block, compute, table_seed

LOOP: dict[str, Any] = {"steps": 3, "group_size": 4, "epochs": 2, "learning_rate": 4.0}
RARE = "RareArm-v1(arms=6,contexts=2)"


def block(environments: list[Environment], seeds: list[int], **changes: Any) -> Block:
    fields: dict[str, Any] = {
        "number": 0,
        "objective": make_objective("dapo"),
        "environments": tuple(environments),
        "model": "tabular",
        "initial": None,
        "settings": Settings(**LOOP),
        "seeds": tuple(seeds),
        "master_seed": 0,
        "labels": {"replica": list(range(len(seeds)))},
    }
    return Block(**fields | changes)


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_no_two_pairs_of_master_and_seed_share_tables() -> None:
    # Neighbouring masters and seeds, and the numbers at which a shift by 16 or 32 bits would run over.
    masters = [0, 1, 2, 3, 255, 2001, 2**16, 2**16 + 1, 2**32 - 1, 2**32, 2**64 - 1]
    seeds = [0, 1, 2, 3, 255, 2**16 - 1, 2**16, 2**16 + 1, 2**31, 2**32 - 1]
    assert len({table_seed(master, seed) for master in masters for seed in seeds}) == len(masters) * len(seeds)


def test_neighbouring_master_seeds_have_environments_of_their_own() -> None:
    # The entropy of the starting policy, a function of the tables alone.
    starts = [
        simulate("dapo", RARE, seeds=6, seed=master, **LOOP).table.query("step == 0")["exact/entropy"]
        for master in range(4)
    ]
    assert pd.concat(starts).nunique() == 4 * 6


def test_the_master_seed_decides_the_draws_as_well_as_the_tables() -> None:
    # Uniform, every seed's tables are the same; only what is drawn differs.
    env = "NullBandit-v1(arms=4,contexts=1,initial=uniform)"
    ends = [
        simulate("dapo", env, seeds=3, seed=master, **LOOP).table.query("step == 3")["exact/kl_initial"]
        for master in range(3)
    ]
    assert pd.concat(ends).nunique() == 9


# -- company -----------------------------------------------------------------------------------------------------------


def test_each_replica_has_its_own_environment_and_seed() -> None:
    flat, steep = (make_environment("NullBandit-v1", arms=6, contexts=2, exponent=value) for value in (0.5, 1.5))
    pairs = [(flat, 0), (steep, 0), (flat, 3), (steep, 3), (flat, 0)]
    together = compute(block([environment for environment, _ in pairs], [seed for _, seed in pairs]))
    for number, (environment, seed) in enumerate(pairs):
        alone = compute(block([environment], [seed]))
        found = together[together["replica"] == number].reset_index(drop=True)
        pd.testing.assert_frame_equal(
            found.drop(columns="replica"), alone.drop(columns="replica"), check_exact=True, obj=f"replica {number}"
        )
    ends = together[together["step"] == 3]["exact/entropy"]
    assert ends.nunique() == 4


def test_success_and_reward_are_gathered_each_for_itself() -> None:
    likely, unlikely = (make_environment(RARE, rare_probability=q) for q in (0.2, 0.1))
    start = compute(block([likely, unlikely], [0, 0])).query("step == 0")
    # The rare arm is the success, the reward 0.2 + 0.8 q.
    assert start["exact/success"].tolist() == pytest.approx([0.2, 0.1], rel=1e-6)
    assert start["exact/return"].tolist() == pytest.approx([0.36, 0.28], rel=1e-6)


def test_a_block_gives_the_rows_that_simulate_gives() -> None:
    whole = simulate("dapo", RARE, seeds=5, seed=9, **LOOP).table
    alone = compute(block([make_environment(RARE)], [4], master_seed=9))
    expected = whole[whole["seed"] == 4].drop(columns=["objective", "replica"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.drop(columns="replica"), expected, check_exact=True)


def test_an_initial_policy_per_seed_goes_where_its_seed_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(RARE)
    initial = torch.randn(5, spec.states, spec.vocabulary, generator=torch.Generator().manual_seed(0)).double()
    whole = simulate("dapo", spec, initial=initial, seeds=5, **LOOP).table
    # One replica a block.
    monkeypatch.setattr("testbed.simulation.blocks.CHUNK_ELEMENTS", 1)
    cut = simulate("dapo", spec, initial=initial, seeds=5, **LOOP).table
    order = ["seed", "step"]
    pd.testing.assert_frame_equal(
        cut.sort_values(order, ignore_index=True), whole.sort_values(order, ignore_index=True), check_exact=True
    )
    assert whole.query("step == 0")["exact/entropy"].nunique() == 5


def test_the_last_block_holds_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # Six arms in two contexts: two replicas a block, and one in the third.
    monkeypatch.setattr("testbed.simulation.blocks.CHUNK_ELEMENTS", 2 * 6 * 2)
    table = simulate("dapo", RARE, seeds=5, **LOOP).table
    assert table.query("step == 0")["seed"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("varied", ["learning_rate", "clip_high"])
def test_values_per_seed_are_not_cut(varied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.simulation.blocks.CHUNK_ELEMENTS", 1)
    values = torch.tensor([0.1, 0.3, 8.0])
    objective = make_objective("dapo", clip_high=values.view(3, 1, 1)) if varied == "clip_high" else "dapo"
    changes = {"learning_rate": values} if varied == "learning_rate" else {"learning_rate": 16.0}
    table = simulate(objective, RARE, seeds=3, **{**LOOP, **changes}).table
    for seed, value in enumerate(values.tolist()):
        single = "dapo" if varied == "learning_rate" else f"dapo(clip_high={value})"
        rate = {"learning_rate": value} if varied == "learning_rate" else changes
        alone = simulate(single, RARE, seeds=3, **{**LOOP, **rate}).table
        found, expected = (frame[frame["seed"] == seed]["exact/entropy"].to_numpy() for frame in (table, alone))
        assert found == pytest.approx(expected, rel=1e-5)  # float32 loop
    assert table.query("step == 3")["exact/entropy"].nunique() == 3


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_carry_labels_seeds_and_counts() -> None:
    environment = make_environment(RARE)
    settings = Settings(**LOOP | {"steps": 5, "metrics_every": 2, "minibatches": 2})
    labels = {"name": ["b", "a", "b"], "limit": [None, 0.5, 1.0]}
    table = compute(block([environment] * 3, [4, 2, 9], labels=labels, settings=settings))
    assert list(table.columns[:5]) == ["name", "limit", "seed", "step", "updates"]
    assert table["step"].tolist() == [0, 0, 0, 2, 2, 2, 4, 4, 4, 5, 5, 5]
    assert table["seed"].tolist() == [4, 2, 9] * 4
    assert table["name"].tolist() == ["b", "a", "b"] * 4
    assert math.isnan(table["limit"][0])
    # Two epochs of two mini-batches.
    assert (table["updates"] == 4 * table["step"]).all()
    metrics = list(table.columns[5:])
    assert metrics == sorted(metrics)


def test_every_rollout_is_counted() -> None:
    counted: list[int] = []
    one = block([make_environment(RARE)], [0])
    compute(one, lambda: counted.append(1))
    assert len(counted) == one.rollouts == 4


def test_replicas_of_several_objectives_are_numbered_through() -> None:
    table = simulate(["dapo", "ppo", "dapo"], RARE, seeds=2, **LOOP).table
    assert table.query("step == 0")["replica"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table["objective"].unique().tolist() == ["dapo", "ppo", "dapo #2"]


def test_double_precision_is_double_all_the_way() -> None:
    single, double = (simulate("dapo", RARE, seeds=2, dtype=dtype, **LOOP).table for dtype in ("float32", "float64"))
    start, exact = (frame.query("step == 0")["exact/return"].to_numpy() for frame in (single, double))
    # 0.2 + 0.8·0.01, to the digits of each type.
    assert exact == pytest.approx([0.208, 0.208], rel=1e-14)
    assert start == pytest.approx([0.208, 0.208], rel=1e-6)
    assert (start != exact).all()
