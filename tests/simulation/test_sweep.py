"""What a sweep asks for, how it becomes replicas, and that its numbers are those of single runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives.dapo import DAPO
from testbed.objectives.erc import ERC
from testbed.simulation import simulate
from testbed.simulation.axes import Axis, Range, parse_axis, sobol
from testbed.simulation.blocks import compute
from testbed.simulation.shards import run_sweep
from testbed.simulation.sweep import Sweep

SMALL: dict[str, Any] = {
    "objective": "dapo",
    "env": "NullBandit-v1(arms=6,contexts=2)",
    "seeds": 3,
    "steps": 4,
    "group_size": 4,
}


# -- the notation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip_low=0.05:0.4:8", Axis("clip_low", (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4))),
        ("learning_rate=1e-2:1:3:log", Axis("learning_rate", (0.01, 0.1, 1.0))),
        ("staleness=0,2,8", Axis("staleness", (0, 2, 8))),
        ("dual_clip=none,3.0", Axis("dual_clip", (None, 3.0))),
        (
            "objective=dapo(clip_low=0.1,clip_high=0.2),ppo",
            Axis("objective", ("dapo(clip_low=0.1,clip_high=0.2)", "ppo")),
        ),
        ("env.scale=1:2", Range("env.scale", 1.0, 2.0)),
        ("learning_rate=0.1:10:log", Range("learning_rate", 0.1, 10.0, logarithmic=True)),
    ],
)
def test_reads_an_axis(text: str, expected: Axis | Range) -> None:
    assert parse_axis(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_low", "cannot read --vary 'clip_low'; expected name=low:high:count"),
        ("clip_low=", "cannot read"),
        ("clip low=1,2", "cannot read"),
        ("clip_low=a:b:3", "cannot read"),
        ("clip_low={[]:1}", r"cannot read --vary 'clip_low=\{\[\]:1\}'; expected"),
        ("clip_low=0:1:3:lin", "cannot read"),
        ("clip_low=0:1:2:3", "cannot read"),
        ("clip_low=1:0:3", "from 1 to 0; expected two finite numbers, the smaller first"),
        ("clip_low=0:1:1", "over 1 points from 0 to 1; give at least 2"),
        ("clip_low=0:1:3:log", "logarithmic scale from 0; expected a positive lower end"),
        ("clip_low=0.1,0.2,0.1", "varied over 0.1, 0.2, 0.1, where 0.1 repeats; give each value once"),
        ("clip_low=0:1:99999999999", "over 99999999999 points from 0 to 1; give at least 2 and at most 1,000,000"),
        ("clip_low=-1e308:1e308:3", "from -1e.308 to 1e.308; expected two finite numbers"),
        (f"steps={10**24},3", f"steps is varied over {10**24}; expected numbers below 2\\^64, words"),
        (f"clip_low=1:2:{'9' * 5000}", "cannot read --vary"),
        (f"{'x' * 5000}", "cannot read --vary 'x+…x+'; expected"),
        (f"steps={','.join(map(str, range(2000)))},7", r"over 0, 1, 2, … 7 \(2,001 values\), where 7 repeats"),
    ],
)
def test_refuses_an_axis(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_axis(text)


def test_sobol_points_fill_the_box() -> None:
    sides = [Range("a", -1.0, 1.0), Range("b", 0.01, 100.0, logarithmic=True)]
    points = sobol(sides, 64, seed=0)
    a, b = (np.array([point[name] for point in points]) for name in ("a", "b"))
    # A scrambled Sobol net of 64 = 8 x 8 points has exactly one in each cell of an 8 x 8 grid.
    cells = {(int((x + 1) * 4), int((math.log10(y) + 2) * 2)) for x, y in zip(a, b, strict=True)}
    assert len(cells) == 64
    assert sobol(sides, 40, seed=0) == points[:40]
    assert sobol(sides, 4, seed=1) != points[:4]


# -- cells and names ---------------------------------------------------------------------------------------------------


def test_cells_are_the_product_with_the_first_axis_slowest() -> None:
    sweep = Sweep(**SMALL, vary=["clip_low=0.1,0.2", "learning_rate=0.1:1", "epochs=1:2:2"], samples=2)
    assert sweep.cell_count == len(sweep.cells) == 8
    assert [cell["clip_low"] for cell in sweep.cells] == [0.1] * 4 + [0.2] * 4
    assert [cell["epochs"] for cell in sweep.cells[:4]] == [1, 1, 2, 2]
    assert sweep.cells[0]["learning_rate"] == sweep.cells[2]["learning_rate"] != sweep.cells[1]["learning_rate"]
    assert list(sweep.cells[0]) == ["clip_low", "learning_rate", "epochs"]


@pytest.mark.parametrize(
    ("vary", "error", "message"),
    [
        (["clip_lo=0.1,0.2"], UnknownNameError, "unknown parameter to vary 'clip_lo'; did you mean 'clip_low'"),
        (["env.arm=3,4"], UnknownNameError, "unknown parameter to vary 'env.arm'"),
        (["policy.x=3,4"], UnknownNameError, "unknown prefix of an axis 'policy'"),
        (["clip_low=0.1,0.2", "clip_low=0.3"], ConfigError, "clip_low is varied twice"),
        (["clip_low=-0.1,0.2"], ConfigError, "clip_low is -0.1; expected a value in"),
        (["clip_low=0.1,0.2,-0.3"], ConfigError, "clip_low is -0.3; expected a value in"),
        (["clip_low=0.1:0.2"], ConfigError, "over a range without a number of points"),
        (["steps=1:2:3"], ConfigError, "it takes whole numbers"),
        (["contexts=1:2:3"], ConfigError, "it takes whole numbers"),
        (["epochs=0,1"], ConfigError, "epochs is 0; expected a whole number of at least 1"),
        (["objective=dapo,dpao"], UnknownNameError, "unknown objective 'dpao'; did you mean 'dapo'"),
        (["optimizer=sgd,adm"], UnknownNameError, "unknown optimizer 'adm'"),
        (
            ["arms=3,4"],
            ConfigError,
            r"arms is varied, but NullBandit-v1\(arms=6\) fixes it at 6; .*: env NullBandit-v1$",
        ),
        (["env.arms=3,4"], ConfigError, r"env.arms is varied, but NullBandit-v1\(arms=6\) fixes it at 6"),
        (
            ["objective=dapo,kl_cov,ppo,topr", "clip_low=0.1,0.2"],
            ConfigError,
            "clip_low is varied, but kl_cov and topr have no parameter clip_low; .* over objective=dapo,ppo$",
        ),
        (
            ["env=RareArm-v1,Lock-v1", "contexts=2,3"],
            ConfigError,
            "contexts is varied, but Lock-v1 has no parameter contexts; .* over env=RareArm-v1$",
        ),
        (["objective=dapo,kl_cov", "clip_lo=0.1,0.2"], UnknownNameError, "unknown parameter to vary 'clip_lo'"),
        (["group_size=1,2"], ConfigError, "group_size is 1 with the group_standardised advantage"),
    ],
)
def test_refuses_before_the_first_draw(vary: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Sweep(**SMALL | {"env": "NullBandit-v1(arms=6)"}, vary=vary)


@pytest.mark.parametrize("value", ["-" * 1000 + "1", "[1]", "{}", "9" * 5000, "b'x'", "1j"])
def test_values_that_are_no_numbers_or_words_are_text(value: str) -> None:
    assert parse_axis(f"clip_low={value}") == Axis("clip_low", (value,))
    with pytest.raises(ConfigError, match=r"clip_low is .*; expected"):
        Sweep(**SMALL, vary=[f"clip_low={value}"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env": 5}, "env is 5; expected a name"),
        ({"model": None}, "model is None; expected a name"),
        ({"vary": 3}, "vary is 3; expected axes"),
        ({"vary": [None]}, "vary is .None.; expected axes"),
        ({"chunk": 0}, "chunk is 0"),
        ({"seeds": 10**24}, "seeds is 1000000000000000000000000; expected a whole number of at most"),
        ({"steps": 10**399}, "steps is a number of about 400|steps is 10+...0+; expected a whole number of at most"),
        ({"steps": "3"}, "steps is '3'; expected a whole number"),
        ({"device": "nowhere"}, "device is 'nowhere', which cannot be used here"),
        ({"device": "meta"}, "device is 'meta', which cannot be used here"),
        ({"device": 3}, "device is 3, which cannot be used here"),
        ({"dtype": "float16"}, "dtype is 'float16'; expected one of float32, float64"),
        ({"compile": "yes"}, "compile is 'yes'; expected true or false"),
        ({"sampled_metrics": 1}, "sampled_metrics is 1; expected true or false"),
        ({"learning_rate": torch.ones(2)}, r"learning_rate is tensor\(.*; a sweep takes one value, or an axis"),
        ({"epochs": [2], "vary": ["epochs=1,2"]}, r"epochs is \[2\]; a sweep takes one value, or an axis epochs="),
        ({"learning_rate": 10**399}, "learning_rate is 1"),
        ({"max_grad_norm": torch.ones(2)}, r"max_grad_norm is tensor\(.*; a sweep takes one value"),
        ({"vary": ["model=tabular,tabula"]}, "unknown model 'tabula'; did you mean 'tabular'"),
        ({"vary": [Axis("clip_low", (*(n / 2000 for n in range(1500)), "x"))]}, "with 'x' among them; give values of"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seeds": True}, "seeds is True"),
        ({"learning_rate": math.inf}, "learning_rate is inf; expected a positive number that is finite"),
        ({"vary": [Axis("learning_rate", (1.0, math.nan))]}, "learning_rate is nan"),
        ({"vary": ["learning_rate=1,fast"]}, "learning_rate is 'fast'"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        Sweep(**SMALL | fields)


def test_refuses_samples_without_a_range() -> None:
    with pytest.raises(ConfigError, match="samples is 4, but no axis is a range"):
        Sweep(**SMALL, vary=["clip_low=0.1,0.2"], samples=4)


def test_ambiguous_name_asks_for_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    # No registered pair shares a name; the settings are made to.
    monkeypatch.setattr("testbed.simulation.sweep._SETTINGS", ("learning_rate", "noise"))
    with pytest.raises(ConfigError, match=r"noise is a parameter of the setting and of the environment; write"):
        Sweep(**SMALL, vary=["noise=0.1,0.2"])


def test_hyper_parameter_of_a_wrapped_objective() -> None:
    sweep = Sweep(**SMALL | {"objective": "erc(base=dapo)"}, vary=["clip_low=0.1,0.2", "beta_low=0.05,0.1"])
    (block,) = sweep.blocks()
    assert isinstance(block.objective, ERC)
    assert isinstance(block.objective.base, DAPO)
    expected = {"clip_low": [0.1, 0.1, 0.2, 0.2], "beta_low": [0.05, 0.1, 0.05, 0.1]}
    for objective, name in ((block.objective.base, "clip_low"), (block.objective, "beta_low")):
        values = getattr(objective, name)
        assert values.shape == (12, 1, 1)
        assert values.flatten()[:4].tolist() == pytest.approx(expected[name], rel=1e-7)  # float32


# -- replicas ----------------------------------------------------------------------------------------------------------


def test_what_can_share_a_batch_does() -> None:
    # Numbers of objective, optimiser and environment tables: one block. Two epochs, two sizes: one block each.
    together = Sweep(
        **SMALL | {"env": "NullBandit-v1(contexts=2)"},
        vary=["clip_low=0.1,0.2", "learning_rate=0.1,1", "exponent=0.5,1", "initial=zipf,uniform"],
    )
    assert together.block_count == 1
    (block,) = together.blocks()
    assert block.labels["cell"] == list(range(16)) * 3
    assert block.seeds == tuple(seed for seed in range(3) for _ in range(16))
    apart = Sweep(**SMALL | {"env": "NullBandit-v1(contexts=2)"}, vary=["epochs=1,2", "arms=5,6", "clip_low=0.1,0.2"])
    assert apart.block_count == 4


@pytest.mark.parametrize(
    ("env", "axis", "values", "blocks"),
    [
        # Other transitions of the same shape, another scatter of rewards: not the same block.
        ("VariableLength-v1(length=4,vocabulary=8,prompts=2)", "fraction", (0.3, 0.6), 2),
        ("NullBandit-v1(arms=6,contexts=2,reward=gaussian)", "noise", (0.1, 2.0), 2),
        ("RareArm-v1(arms=6,contexts=2)", "reward", ("bernoulli", "deterministic"), 2),
        ("RareArm-v1(arms=6,contexts=2)", "rare_probability", (0.1, 0.3), 1),
    ],
)
def test_environments_share_a_block_only_where_tables_alone_differ(
    env: str, axis: str, values: tuple[Any, ...], blocks: int
) -> None:
    sweep = Sweep(**SMALL | {"env": env}, vary=[Axis(axis, values)], learning_rate=4.0, metrics_every=1)
    assert sweep.block_count == blocks
    run = run_sweep(sweep)
    assert run is not None
    for cell, value in enumerate(values):
        single = f"{env[:-1]},{axis}={value})"
        alone = simulate("dapo", single, seeds=3, steps=4, group_size=4, learning_rate=4.0, sampled_metrics=False).table
        order = ["seed", "step"]
        shared = [name for name in alone if name not in ("objective", "replica")]
        found = run.table[run.table["cell"] == cell][shared].sort_values(order, ignore_index=True)
        pd.testing.assert_frame_equal(found, alone[shared].sort_values(order, ignore_index=True), check_exact=True)


def test_equal_sweeps_have_equal_fingerprints() -> None:
    plain = Sweep(**SMALL, vary=["clip_low=0.1,0.2"])
    # Four steps: every one is recorded where nobody says how many.
    same = [{"metrics_every": 1}, {"vary": [Axis("clip_low", (0.1, 0.2))]}, {"dtype": torch.float32}]
    other: list[dict[str, Any]] = [
        {"seed": 1},
        {"seeds": 4},
        {"steps": 5},
        {"metrics_every": 2},
        {"sampled_metrics": True},
        {"objective": "dapo(clip_high=0.3)"},
        {"model": "low_rank"},
        {"vary": ["clip_low=0.2,0.1"]},
        {"vary": ["clip_low=0.1,0.3"]},
        {"dtype": "float64"},
        {"staleness": 1},
        {"advantage": "none"},
        {"chunk": 3},
    ]
    prints = [Sweep(**{**SMALL, "vary": ["clip_low=0.1,0.2"], **changes}).fingerprint for changes in (*same, *other)]
    assert prints[: len(same)] == [plain.fingerprint] * len(same)
    assert len({plain.fingerprint, *prints[len(same) :]}) == 1 + len(other)


def test_the_master_seed_scatters_the_sobol_points() -> None:
    first, second = (Sweep(**SMALL, vary=["clip_low=0.1:0.3"], samples=4, seed=seed).cells for seed in (0, 1))
    assert first != second


def test_a_cell_is_the_run_it_describes() -> None:
    sweep = Sweep(
        **SMALL | {"env": "NullBandit-v1(contexts=2)"},
        vary=["clip_low=0.1,0.3", "learning_rate=0.5,2", "epochs=2,3", "arms=5:7:2", "initial=zipf,uniform"],
        metrics_every=1,
        sampled_metrics=True,
    )
    run = run_sweep(sweep)
    assert run is not None
    for number in (0, 13, 31):
        cell = sweep.cells[number]
        alone = simulate(
            f"dapo(clip_low={cell['clip_low']})",
            f"NullBandit-v1(contexts=2,arms={cell['arms']},initial={cell['initial']})",
            seeds=3,
            steps=4,
            group_size=4,
            epochs=cell["epochs"],
            learning_rate=torch.full((3,), cell["learning_rate"]),
        ).table.sort_values(["seed", "step"], ignore_index=True)
        found = run.table[run.table["cell"] == number].reset_index(drop=True)
        assert (found[list(cell)] == pd.Series(cell)).all(axis=None)
        shared = [name for name in alone if name not in ("objective", "replica")]
        # One rounding of 1 - 0.1 in float32 instead of float64 separates the two.
        pd.testing.assert_frame_equal(found[shared], alone[shared], rtol=1e-4, atol=1e-6, check_dtype=False)


def test_varied_objectives_share_seeds() -> None:
    run = run_sweep(Sweep(**SMALL, vary=["objective=dapo,sapo"]))
    assert run is not None
    first = run.table[run.table["step"] == 0]
    by_objective = [group["exact/entropy"].to_numpy() for _, group in first.groupby("objective")]
    np.testing.assert_array_equal(*by_objective)


@pytest.mark.parametrize("chunk", [1, 5, 7])
def test_chunks_do_not_change_a_bit(chunk: int) -> None:
    vary = ["clip_low=0.1,0.2,0.3", "learning_rate=0.5,2", "env.exponent=0.5,1"]
    whole, cut = (run_sweep(Sweep(**SMALL, vary=vary, sampled_metrics=True, chunk=size)) for size in (None, chunk))
    assert whole is not None
    assert cut is not None
    assert whole.table["exact/entropy"].nunique() > 36
    pd.testing.assert_frame_equal(cut.table, whole.table, check_exact=True)


def test_table_is_tidy() -> None:
    run = run_sweep(Sweep(**SMALL, vary=["clip_low=0.1,0.2", "optimizer=sgd,adam"], metrics_every=2))
    assert run is not None
    table = run.table
    assert list(table.columns[:7]) == ["cell", "clip_low", "optimizer", "seed", "step", "updates", "exact/entropy"]
    assert not table.duplicated(["cell", "seed", "step"]).any()
    assert len(table) == 4 * 3 * 3
    assert table["step"].unique().tolist() == [0, 2, 4]
    assert "ratio/mean" not in table
    assert run.facts["sweep"]["vary"][0] == {"name": "clip_low", "values": [0.1, 0.2]}


def test_rows_do_not_grow_with_the_steps() -> None:
    for steps in (25, 250, 2500):
        sweep = Sweep(**SMALL | {"steps": steps}, vary=["clip_low=0.1,0.2"])
        assert sweep.estimate().rows == 2 * 3 * 26


def test_threads_are_left_as_found() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    compute(next(Sweep(**SMALL).blocks()))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_refuses_a_grid_that_does_not_fit() -> None:
    sweep = Sweep(**SMALL, vary=["clip_low=0.1:0.9:1000", "clip_high=0.1:0.9:1000"])
    # 1e6 cells x 3 seeds, 5 rows each (steps 0 to 4) of about 16 columns, 8 bytes a number, three copies.
    assert sweep.estimate().table_bytes == pytest.approx(3 * 8 * 1e6 * 3 * 5 * 16, rel=1e-12)
    with pytest.raises(
        ConfigError, match=r"1,000,000 cells × 3 seeds = 3,000,000 replicas.*raise metrics_every from 1"
    ):
        run_sweep(sweep, memory_limit=5 << 30)


def test_refuses_more_cells_than_can_be_listed(tmp_path: Path) -> None:
    sweep = Sweep(**SMALL, vary=["clip_low=0.1:0.9:100000", "clip_high=0.1:0.9:100000"])
    with pytest.raises(ConfigError, match=r"10,000,000,000 cells .* Sweep at most about [\d,]+ cells at a time"):
        run_sweep(sweep, tmp_path / "sweep", shard="1/1000", memory_limit=8 << 30)
    assert not (tmp_path / "sweep").exists()


def test_refusal_names_a_chunk_that_fits() -> None:
    sweep = Sweep(**SMALL | {"env": "NullBandit-v1(arms=100000,contexts=8)"}, vary=["clip_low=0.1:0.2:30"], chunk=30)
    with pytest.raises(ConfigError, match=r"Train at most (\d+) replicas at once in each of 1 processes") as caught:
        sweep.check_memory(limit=1 << 30)
    fitting = int(str(caught.value).rpartition("=")[2].rstrip(")"))
    arguments = SMALL | {"env": "NullBandit-v1(arms=100000,contexts=8)", "chunk": fitting}
    assert 1 <= fitting < 30
    Sweep(**arguments, vary=["clip_low=0.1:0.2:30"]).check_memory(limit=1 << 30)


# -- YAML --------------------------------------------------------------------------------------------------------------


def test_yaml_says_the_same_as_python(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        """
objective: dapo
env: NullBandit-v1(arms=6,contexts=2)
seeds: 3
steps: 4
group_size: 4
samples: 4
vary:
  clip_low: {low: 0.05, high: 0.4, points: 8}
  learning_rate: {low: 0.1, high: 10, log: true}
  optimizer: [sgd, adam]
  clip_high: "0.1:0.2:2"
"""
    )
    vary = ["clip_low=0.05:0.4:8", "learning_rate=0.1:10:log", "optimizer=sgd,adam", "clip_high=0.1:0.2:2"]
    assert Sweep.from_yaml(path).fingerprint == Sweep(**SMALL, vary=vary, samples=4).fingerprint
    assert Sweep.from_yaml(path, seeds=4).fingerprint == Sweep(**SMALL | {"seeds": 4}, vary=vary, samples=4).fingerprint


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("- 1", ConfigError, r"holds \[1\]; expected a mapping of a sweep's fields"),
        ("objective: [", ConfigError, "sweep.yaml is not YAML: line 1, column 13"),
        ("objective: dapo\nenv: NullBandit-v1\nsteps: many", ConfigError, "steps is 'many'; expected int"),
        ("objective: dapo\nenv: NullBandit-v1\nseeds: 2.5", ConfigError, "seeds is 2.5; expected int"),
        ("objective: dapo\nenv: NullBandit-v1\nchunk: []", ConfigError, r"chunk is \[\]; expected int"),
        ("objective: dapo\nenv: 5", ConfigError, "env is 5; expected str"),
        ("objective: {dapo: 1}\nenv: NullBandit-v1", ConfigError, "objective is .'dapo': 1.; expected a name"),
        ("objective: dapo\nenv: NullBandit-v1\nvary: [1]", ConfigError, r"vary is \[1\]; expected axes, such as"),
        (
            "objective: dapo\nenv: NullBandit-v1\nvary: {clip_low: [[1]]}",
            ConfigError,
            r"varied over \[1\]; expected num",
        ),
        ("objective: dapo\nenv: NullBandit-v1\nvary: {clip_low: []}", ConfigError, "varied over no values"),
        (
            "objective: dapo\nenv: NullBandit-v1\nvary: {steps: !!timestamp soon}",
            ConfigError,
            "'soon' cannot be read as",
        ),
        ("objective: dapo\nenv: NullBandit-v1\nvary: {1: [2]}", ConfigError, "vary has the key 1, which YAML reads as"),
        (
            "objective: dapo\nenv: NullBandit-v1\nvary: {clip_low: {low: 1, high: 2, log: 3}}",
            ConfigError,
            "axis clip_low is",
        ),
        ("objective: dapo", ConfigError, "the sweep has no env"),
        (
            "objective: dapo\nenv: NullBandit-v1\nseed_count: 3",
            UnknownNameError,
            "unknown field of a sweep 'seed_count'",
        ),
        ("objective: dapo\nenv: NullBandit-v1\nvary: {clip_low: {low: 1, max: 2}}", ConfigError, "axis clip_low is"),
    ],
)
def test_refuses_yaml(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(error, match=message):
        Sweep.from_yaml(tmp_path / "sweep.yaml")


def test_yaml_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes(b"objective: dapo\nenv: NullBandit-v1\xff")
    with pytest.raises(ConfigError, match=r"sweep.yaml is no plain text: byte 0xff .*; save it as UTF-8"):
        Sweep.from_yaml(tmp_path / "sweep.yaml")


def test_one_axis_need_not_be_a_list(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text('objective: dapo\nenv: NullBandit-v1\nlearning_rate: 1e-3\nvary: "clip_low=0.1,0.2"')
    assert Sweep.from_yaml(path) == Sweep(
        objective="dapo", env="NullBandit-v1", learning_rate=1e-3, vary=["clip_low=0.1,0.2"]
    )


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Sweep.from_yaml(tmp_path / "nowhere.yaml")
