"""Figures, read back from their artists rather than compared with pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.plots import OKABE_ITO, Bar, curve_figure, interval_figure, save, svg_source
from testbed.errors import ConfigError

CURVE = {
    "title": "Entropy",
    "x_label": "step (rollouts)",
    "y_label": "entropy (nats)",
    "series": [
        {
            "label": "dapo",
            "x": [0, 1, 2, 3],
            "mean": [2, None, 1, 0.5],
            "low": [1, None, 0, 0],
            "high": [3, None, 2, 1],
        },
        {"label": "erc", "x": [0, 1, 2, 3], "mean": [2, 1.9, 1.8, math.nan]},
    ],
}


def test_curves_keep_their_gaps_and_labels() -> None:
    (axes,) = curve_figure([CURVE]).axes
    first, second = axes.get_lines()
    np.testing.assert_array_equal(first.get_ydata(), [2, math.nan, 1, 0.5])
    np.testing.assert_array_equal(second.get_ydata(), [2, 1.9, 1.8, math.nan])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step (rollouts)", "entropy (nats)")
    assert axes.get_title(loc="left") == "Entropy"
    # A band only where an interval was given.
    assert len(axes.collections) == 1


def test_series_differ_by_more_than_colour() -> None:
    series = [{"label": str(index), "x": [0, 1], "mean": [0, index]} for index in range(40)]
    (axes,) = curve_figure([CURVE | {"series": series}]).axes
    looks = {(line.get_color(), str(line._dash_pattern), line.get_marker()) for line in axes.get_lines()}
    assert len(looks) == 40
    without_colour = {(str(line._dash_pattern), line.get_marker()) for line in axes.get_lines()[:30]}
    assert len(without_colour) == 30
    assert len(set(OKABE_ITO)) == 7


def test_panels_are_laid_out_in_rows() -> None:
    figure = curve_figure([CURVE] * 3, columns=2, titles=False)
    assert len(figure.axes) == 3
    # Two rows of panels and one of legend.
    assert figure.get_size_inches().tolist() == pytest.approx([8.0, 5.25])
    assert figure.axes[0].get_title(loc="left") == ""


def test_a_label_looks_the_same_in_every_panel_and_stands_in_one_legend() -> None:
    erc = CURVE["series"][1]
    figure = curve_figure([CURVE, CURVE | {"series": [erc]}])
    both, alone = (axes.get_lines() for axes in figure.axes)
    assert [line.get_color() for line in both] == list(OKABE_ITO[:2])
    assert (alone[0].get_label(), alone[0].get_color()) == ("erc", OKABE_ITO[1])
    assert alone[0].get_marker() == both[1].get_marker() != both[0].get_marker()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["dapo", "erc"]


def test_panels_with_labels_of_their_own_have_legends_of_their_own() -> None:
    dapo, erc = CURVE["series"]
    figure = curve_figure([CURVE | {"series": [dapo]}, CURVE | {"series": [erc]}])
    assert figure.legends == []
    assert [[text.get_text() for text in panel.legends[0].get_texts()] for panel in figure.subfigs] == [
        ["dapo"],
        ["erc"],
    ]


def test_a_dollar_sign_is_no_formula() -> None:
    label = "$\\frac$ <script>"
    curve = CURVE | {"title": label, "series": [{"label": label, "x": [0, 1], "mean": [0, 1]}]}
    source = svg_source(curve_figure([curve]))
    assert source.count("$\\frac$ &lt;script&gt;") == 2
    assert "<script" not in source


@pytest.mark.parametrize(
    ("direction", "claimed"),
    [("greater", (0.2, None)), ("less", (None, 0.2)), ("equivalent", (-0.2, 0.2))],
)
def test_the_claimed_side_is_shaded(direction: str, claimed: tuple[float | None, float | None]) -> None:
    figure = interval_figure([Bar("claim", 0.4, 0.3, 0.5)], threshold=0.2, direction=direction, unit="nats")
    (axes,) = figure.axes
    left, right = axes.get_xlim()
    (span,) = axes.patches
    start, stop = span.get_x(), span.get_x() + span.get_width()
    expected = (left if claimed[0] is None else claimed[0], right if claimed[1] is None else claimed[1])
    assert (start, stop) == pytest.approx(expected, rel=1e-9)
    assert left < 0.2 < 0.5 < right
    assert axes.get_xlabel() == "estimate (nats)"


def test_identities_have_a_logarithmic_axis_that_shows_an_exact_zero() -> None:
    bars = [Bar("claim", 0.0), Bar("falsifier", 0.3)]
    (axes,) = interval_figure(bars, threshold=1e-9, direction="identity", unit="relative").axes
    assert axes.get_xscale() == "log"
    # Four decades of room below the tolerance for the arrow, one above the decade that 0.3 ends in.
    assert axes.get_xlim() == pytest.approx((1e-13, 10.0), rel=1e-9)
    assert axes.xaxis.get_major_formatter()(1e-9) == "10⁻⁹"
    assert "exactly 0" in [text.get_text() for text in axes.texts]


def test_no_label_of_a_figure_is_left_as_formula_source() -> None:
    bars = [Bar("claim", 3e-16), Bar("falsifier", 0.3)]
    assert "$" not in svg_source(interval_figure(bars, threshold=1e-9, direction="identity", unit="relative"))
    tiny = CURVE | {"series": [{"label": "a", "x": [0, 1e7], "mean": [1e-9, 3e-9]}]}
    assert "$" not in svg_source(curve_figure([tiny]))


def test_a_tolerance_of_zero_stands_at_the_edge_of_the_logarithmic_axis():
    # Warnings are errors: a line at 0 on a logarithmic axis made the layout collapse.
    bars = [Bar("claim", 0.0, None, None), Bar("falsifier", 0.25, None, None)]
    figure = interval_figure(
        bars, threshold=0.0, direction="identity", unit="share of sampled tokens in the wrong class"
    )
    assert "tolerance 0" in svg_source(figure)
    assert figure.axes[0].get_xlabel().count("\n") == 1, "a long unit is broken into two lines"


def test_missing_is_written_and_not_drawn() -> None:
    bars = [Bar("claim", math.nan), Bar("falsifier", None, 0.1, 0.2)]
    (axes,) = interval_figure(bars, threshold=None, direction="greater", unit="nats").axes
    assert [text.get_text() for text in axes.texts] == ["missing", "missing"]
    assert len(axes.get_lines()) == 0


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_saving_twice_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = save(curve_figure([CURVE]), tmp_path / f"first{suffix}")
    second = save(curve_figure([CURVE]), tmp_path / f"second{suffix}")
    assert first.read_bytes() == second.read_bytes() != b""


def test_rejects_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot save a figure as 'a.bmp'; expected a name ending in \.svg"):
        save(curve_figure([CURVE]), tmp_path / "a.bmp")


def test_rejects_columns_of_different_length() -> None:
    series = {"label": "dapo", "x": [0, 1], "mean": [1.0]}
    with pytest.raises(ConfigError, match=r"series 'dapo' of 'Entropy' has 1 values of 'mean' for 2 of 'x'"):
        curve_figure([CURVE | {"series": [series]}])


def test_rejects_nothing_to_draw() -> None:
    with pytest.raises(ConfigError, match="got no curves"):
        curve_figure([])
    with pytest.raises(ConfigError, match="got no bars"):
        interval_figure([], threshold=0.0, direction="greater", unit="")


def test_rejects_an_unknown_direction() -> None:
    with pytest.raises(ConfigError, match="direction is 'up'; expected one of greater, less"):
        interval_figure([Bar("claim", 1.0)], threshold=0.0, direction="up", unit="")
