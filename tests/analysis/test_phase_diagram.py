"""Onsets, sign boundaries and the figure, on tables whose answers can be read off."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.phase_diagram import (
    BOUNDARIES,
    draw_phase_diagram,
    outcomes,
    phase_diagram,
    sign_boundary,
)
from testbed.errors import ConfigError, UnknownNameError
from testbed.simulation import Run, Sweep, run_sweep


def planted(axes: dict[str, list[Any]], entropies: dict[tuple[int, int], list[float]], **facts: Any) -> Run:
    """A sweep's run on a bandit of four arms with these entropies by cell and seed."""
    rows = [
        {
            "cell": cell,
            **{name: values[cell] for name, values in axes.items()},
            "seed": seed,
            "step": 10 * index,
            "exact/entropy": value,
            "exact/regret": 0.0,
            "exact/kl_initial": 0.2 * index,
        }
        for (cell, seed), path in entropies.items()
        for index, value in enumerate(path)
    ]
    sweep = {
        "objective": "dapo",
        "env": "NullBandit-v1(arms=4,contexts=1)",
        "seed": 0,
        "steps": 20,
        "epochs": 4,
        "minibatches": 1,
        "group_size": 16,
        "learning_rate": 1.0,
        "vary": [{"name": name, "values": list(dict.fromkeys(values))} for name, values in axes.items()],
    }
    return Run(pd.DataFrame(rows), {"sweep": sweep | facts})


def plane(change: Any, *, points: int = 5, seeds: int = 8, noise: float = 0.0) -> Run:
    """A full grid over both clip bounds in which entropy ends at 0.7 + change(low, high) + noise of the seed."""
    values = np.linspace(0.1, 0.5, points)
    low, high = (axis.ravel() for axis in np.meshgrid(values, values, indexing="ij"))
    spread = noise * np.random.default_rng(0).standard_normal(seeds)
    paths = {
        (cell, seed): [0.7, 0.7 + change(low[cell], high[cell]) + spread[seed]]
        for cell in range(points**2)
        for seed in range(seeds)
    }
    return planted({"clip_low": low.tolist(), "clip_high": high.tolist()}, paths)


def test_outcomes_by_hand() -> None:
    # On the null bandit H* = log 4, so collapse is below 0.1 · 0.6 nats and explosion 0.5 · 0.6 above some earlier
    # step, each for three records in a row.
    paths = {
        (0, 0): [0.6, 0.05, 0.04, 0.05, 0.05],
        (0, 1): [0.6, 0.5, 0.95, 0.95, 0.95],
        (0, 2): [0.6, 0.05, 0.6, 0.05, 0.6],
        (1, 0): [0.6, 0.6, 0.6, 0.6, 0.61],
    }
    found = outcomes(planted({"clip_low": [0.1, 0.2]}, paths)).set_index(["cell", "seed"])
    assert found["collapse"].tolist() == [10, math.inf, math.inf, math.inf]
    assert found["explosion"].tolist() == [math.inf, 20, math.inf, math.inf]
    np.testing.assert_allclose(found["entropy_change"], [-0.55, 0.35, 0.0, 0.01], rtol=0, atol=1e-15)
    assert found["regret"].tolist() == [0.0] * 4
    assert found["kl"].tolist() == [0.8] * 4
    assert found["clip_low"].tolist() == [0.1, 0.1, 0.1, 0.2]


def test_optimum_is_that_of_the_cell() -> None:
    # With one right arm of four H* = 0 and the solved task may cost all entropy; with two right arms log 2 is free.
    paths = {(cell, 0): [1.2, 0.05, 0.05, 0.05] for cell in range(2)}
    run = planted({"fraction": [0.25, 0.5]}, paths, env="MultiCorrectBandit-v1(arms=4,contexts=1)")
    run.table["exact/regret"] = run.table["step"].map({0: 0.5}).fillna(0.0)
    assert outcomes(run)["collapse"].tolist() == [math.inf, 10]


def test_too_few_records_are_missing() -> None:
    found = outcomes(planted({"clip_low": [0.1]}, {(0, 0): [0.6, 0.0, 0.0]}))
    assert found[["collapse", "explosion"]].isna().all(axis=None)


def test_cells_recorded_at_other_steps() -> None:
    paths = {(0, 0): [0.6, 0.05, 0.05, 0.05], (1, 0): [0.6, 0.6, 0.05, 0.05, 0.05]}
    assert outcomes(planted({"steps": [30, 40]}, paths))["collapse"].tolist() == [10, 20]


def test_sign_boundary_of_a_straight_line() -> None:
    # The change is 0 where high = 0.6 - low, linear in between: interpolation is exact.
    found = sign_boundary(outcomes(plane(lambda low, high: 0.5 * (high + low - 0.6))), "clip_low", "clip_high")
    np.testing.assert_allclose(found.x, [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-12)
    np.testing.assert_allclose(found.y, [0.5, 0.4, 0.3, 0.2, 0.1], rtol=1e-9)
    # All seeds agree, so do all resamples.
    np.testing.assert_allclose(found.low, found.y, rtol=1e-9)
    np.testing.assert_allclose(found.high, found.y, rtol=1e-9)


def test_sign_boundary_is_missing_without_a_change_of_sign() -> None:
    found = sign_boundary(outcomes(plane(lambda low, high: low - 0.25)), "clip_low", "clip_high")
    assert np.isnan(found.y).all()
    assert np.isnan(found.low).all()


def test_interval_of_the_boundary_is_that_of_the_mean() -> None:
    # A shift of a seed by s moves its crossing by -s: the interval is that of the mean shift of the 64 seeds.
    run = plane(lambda low, high: high - 0.3, points=9, seeds=64, noise=0.05)
    found = sign_boundary(outcomes(run), "clip_low", "clip_high")
    width = 2 * 1.645 * 0.05 / math.sqrt(64)
    np.testing.assert_allclose(found.high - found.low, width, rtol=0.25)  # the sample's own spread, and resampling
    assert ((found.low < 0.3) & (found.high > 0.3)).all()


def test_sign_boundary_needs_a_full_grid() -> None:
    table = outcomes(plane(lambda low, high: high - low))
    with pytest.raises(ConfigError, match="no full grid with equal seeds"):
        sign_boundary(table[table["cell"] != 3], "clip_low", "clip_high")


def test_boundaries_by_hand() -> None:
    arithmetic, logarithmic = (item.curve(np.array([0.2, 0.5])) for item in BOUNDARIES)
    assert arithmetic.tolist() == [0.2, 0.5]
    np.testing.assert_allclose(logarithmic, [0.25, 1.0], rtol=1e-15)  # (1 + ε)(1 - 0.2) = 1, (1 + ε)(1 - 0.5) = 1


def test_figure_shows_every_measure_and_the_boundaries() -> None:
    figure = phase_diagram(plane(lambda low, high: high - low + 0.01))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:6] == [
        "Final entropy",
        "Change of entropy",
        "Regret",
        "KL from the initial policy",
        "Onset of collapse",
        "Onset of explosion",
    ]
    legend = [text.get_text() for text in figure.axes[6].get_legend().get_texts()]
    assert legend[0] == "measured: no change"
    assert legend[2:] == [item.label for item in BOUNDARIES]
    assert "25 cells, 8 seeds per cell" in figure.axes[6].texts[0].get_text()


def test_panel_shows_the_cell_means() -> None:
    run = plane(lambda low, high: high - low, noise=0.1)
    mesh = phase_diagram(run, "clip_low", "clip_high").axes[1].collections[0]
    table = outcomes(run).pivot_table(index="clip_high", columns="clip_low", values="entropy_change")
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(5, 5), table.to_numpy(), rtol=1e-12)


def test_boundary_of_another_plane_is_not_drawn() -> None:
    run = plane(lambda low, high: high - low)
    run.facts["sweep"]["env"] = "RareArm-v1(arms=4,contexts=1)"
    legend = [text.get_text() for text in phase_diagram(run).axes[6].get_legend().get_texts()]
    assert not set(legend) & {item.label for item in BOUNDARIES}


def test_one_axis_gives_curves() -> None:
    run = planted(
        {"staleness": [0, 1, 2]}, {(cell, seed): [0.6, 0.5 + 0.01 * seed] for cell in range(3) for seed in range(5)}
    )
    figure = phase_diagram(run)
    assert [axes.get_xlabel() for axes in figure.axes] == ["staleness"] * 4


def test_files_of_a_real_sweep(tmp_path: Path) -> None:
    sweep = Sweep(
        objective="dapo",
        env="NullBandit-v1(arms=4,contexts=1)",
        vary=["clip_low=0.1:0.3", "clip_high=0.1:0.3", "optimizer=sgd,adam"],
        samples=4,
        seeds=2,
        steps=2,
    )
    run = run_sweep(sweep)
    assert run is not None
    first = draw_phase_diagram(run, tmp_path)
    assert first == tmp_path / "phase-optimizer=sgd.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phase-optimizer=adam.png", "phase-optimizer=sgd.png"]
    assert first.read_bytes().startswith(b"\x89PNG")


def test_no_file_without_a_numeric_axis(tmp_path: Path) -> None:
    run = planted({"optimizer": ["sgd", "adam"]}, {(0, 0): [0.6, 0.5], (1, 0): [0.6, 0.5]})
    assert draw_phase_diagram(run, tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": "clip_lo"}, UnknownNameError, "unknown axis of the sweep 'clip_lo'; did you mean 'clip_low'"),
        ({"where": {"clip_low": 7.0}}, ConfigError, "no cell has clip_low = 7.0; it takes"),
    ],
)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        phase_diagram(plane(lambda low, high: high - low), **arguments)


def test_refuses_a_free_axis() -> None:
    run = planted(
        {"clip_low": [0.1, 0.2], "clip_high": [0.1, 0.1], "epochs": [2, 4]}, {(0, 0): [0.6, 0.5], (1, 0): [0.6, 0.5]}
    )
    with pytest.raises(ConfigError, match="epochs is varied beside clip_low and clip_high; choose one value"):
        phase_diagram(run)


def test_refuses_a_run_that_is_no_sweep() -> None:
    with pytest.raises(ConfigError, match="the run is no sweep"):
        outcomes(Run(pd.DataFrame(), {}))


def test_whole_numbers_of_an_environment_beside_a_fraction() -> None:
    # In one row of floats the five arms would be 5.0, which no environment takes.
    paths = {(cell, seed): [0.6, 0.6] for cell in range(2) for seed in range(2)}
    run = planted({"clip_low": [0.1, 0.2], "arms": [5, 2]}, paths, env="NullBandit-v1(contexts=1)")
    assert outcomes(run)["arms"].tolist() == [5, 5, 2, 2]


def test_few_seeds_have_a_line_and_no_interval() -> None:
    paths = {(cell, seed): [0.6, 0.5 + 0.01 * seed] for cell in range(3) for seed in range(4)}
    figure = phase_diagram(planted({"staleness": [0, 1, 2]}, paths))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mean of 4 seeds"]
    found = sign_boundary(outcomes(plane(lambda low, high: high - 0.3, seeds=4)), "clip_low", "clip_high")
    assert np.isfinite(found.y).all()
    assert np.isnan(found.low).all()


def test_caption_holds_only_what_is_the_same_everywhere() -> None:
    paths = {(cell, seed): [0.6, 0.5] for cell in range(4) for seed in range(5)}
    axes = {"learning_rate": [1.0, 1.0, 2.0, 2.0], "epochs": [2, 4, 2, 4]}
    caption = phase_diagram(planted(axes, paths)).axes[6].texts[0].get_text().replace("\n", " ")
    assert "20 rollouts, 1 mini-batch, group size 16" in caption
    assert "learning rate" not in caption


def test_a_setting_that_is_off_is_a_value_of_its_axis(tmp_path: Path) -> None:
    paths = {(cell, seed): [0.6, 0.5 + 0.1 * cell] for cell in range(4) for seed in range(2)}
    axes = {"learning_rate": [1.0, 1.0, 2.0, 2.0], "dual_clip": [None, 3.0, None, 3.0]}
    draw_phase_diagram(planted(axes, paths), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phase-dual_clip=3.0.png", "phase-dual_clip=None.png"]
    axis = phase_diagram(planted(axes, paths), where={"dual_clip": None}).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.5, 0.7], rtol=1e-12)
