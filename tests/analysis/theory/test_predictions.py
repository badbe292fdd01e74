"""Every prediction holds, says how it was checked, and would be found wrong if it were."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from analysis.theory import Measurement, Prediction, predictions
from testbed.errors import ConfigError

ALL = predictions()


@pytest.mark.parametrize("prediction", ALL, ids=lambda prediction: prediction.name)
def test_prediction_holds(prediction):
    comparison = prediction.compare()
    assert comparison.holds, comparison


@pytest.mark.parametrize("prediction", ALL, ids=lambda prediction: prediction.name)
def test_tolerance_is_tight(prediction):
    # Two orders are fitted slopes; everything else is an identity or is counted in standard errors.
    assert prediction.tolerance <= (4.0 if prediction.scale == "standard errors" else 0.05)


def test_every_statement_is_covered_in_order():
    assert sorted({item.id for item in ALL}, key=lambda id: int(id[1:])) == [f"T{n}" for n in range(1, 13)]
    assert [int(item.id[1:]) for item in ALL] == sorted(int(item.id[1:]) for item in ALL)


def example(predicted, measured, **changes) -> Prediction:
    settings = {
        "id": "T1",
        "name": "example",
        "statement": "two is two",
        "route": "counting",
        "unit": "1",
        "tolerance": 1e-9,
        "predict": lambda: predicted,
        "measure": lambda: measured,
    }
    return Prediction(**{**settings, **changes})


def test_comparison_reports_the_worst_number():
    comparison = example([1.0, 2.0, 4.0], [1.0, 2.5, 4.25]).compare()
    assert (comparison.predicted, comparison.measured, comparison.error) == (2.0, 2.5, 0.5)
    assert not comparison.holds
    assert comparison.numbers == 3


def test_scales():
    relative = example([100.0], [101.0], scale="relative", tolerance=0.011).compare()
    assert relative.error == pytest.approx(0.01, rel=1e-12)
    assert relative.holds
    noisy = example([1.0], Measurement([1.3], [0.1]), scale="standard errors", tolerance=2.0).compare()
    assert noisy.error == pytest.approx(3.0, rel=1e-12)
    assert not noisy.holds


def test_missing_numbers_do_not_hold():
    comparison = example([1.0, 1.0], [1.0, math.nan]).compare()
    assert math.isnan(comparison.error)
    assert not comparison.holds


def test_zero_predicted_and_found_has_no_relative_error():
    assert example([0.0], [0.0], scale="relative").compare().error == 0.0
    assert example([0.0], [1e-12], scale="relative").compare().error == math.inf


@pytest.mark.parametrize(
    ("predicted", "measured", "changes", "message"),
    [
        ([1.0], [1.0, 1.0], {}, r"predicted shape \(1,\), measured shape \(2,\)"),
        ([], [], {}, "at least one number"),
        ([1.0], Measurement([1.0], [0.1]), {}, "the scale is 'absolute'"),
        ([1.0], [1.0], {"scale": "standard errors"}, "the scale is 'standard errors'"),
    ],
)
def test_comparison_rejects(predicted, measured, changes, message):
    prediction = example(predicted, measured, **changes)
    with pytest.raises(ConfigError, match=message):
        prediction.compare()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": math.inf}, "tolerance is inf"),
        ({"tolerance": -1.0}, "tolerance is -1"),
        ({"id": "5"}, "expected T and a number"),
        ({"route": " "}, "route is empty"),
    ],
)
def test_prediction_rejects(changes, message):
    with pytest.raises(ConfigError, match=message):
        example([1.0], [1.0], **changes)


@pytest.mark.parametrize("name", [item.name for item in ALL if item.tolerance > 0 and item.scale == "absolute"])
def test_a_wrong_prediction_is_caught(name):
    (prediction,) = (item for item in ALL if item.name == name)
    # Off by the tolerance in the fourth digit of its own size, plus twice the tolerance itself.
    right = np.asarray(prediction.predict(), dtype=np.float64)
    wrong = dataclasses.replace(prediction, predict=lambda: right * 1.0001 + 2 * prediction.tolerance)
    assert not wrong.compare().holds
