from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.calibration import Calibration, ClaimCalibration, _planted, calibrate, calibrated_claims
from analysis.claims import StatisticalClaim, get_claim
from testbed.errors import ConfigError, RunExistsError


def claim(name: str) -> StatisticalClaim:
    found = get_claim(name)
    assert isinstance(found, StatisticalClaim)
    return found


def test_a_claim_is_calibrated_and_the_result_saved(tmp_path: Path) -> None:
    done = calibrate(["dcpo/response-utilisation"], repeats=3, jobs=1, out=tmp_path / "c", command="testbed calibrate")
    (found,) = done.claims
    assert found.repeats == 3
    assert found.false_verdicts == 0
    assert found.power == 1.0, "an effect of twice the threshold over 32 seeds is far outside the noise here"
    saved = json.loads((tmp_path / "c" / "calibration.json").read_text(encoding="utf-8"))
    assert saved["null_verdicts"] == 3


def test_the_two_sides_differ_by_chance() -> None:
    from analysis.calibration import _null_sides

    sides = _null_sides(claim("dcpo/response-utilisation"), 6)
    left, right = (side["advantage/nonzero_fraction"][-1] for side in sides.values())
    assert (left != right).any(), "an objective against itself on the same seeds would be trivially equal"


def test_planting_moves_the_mean_and_nothing_else() -> None:
    null = np.array([[1.0, 2.0], [3.0, 6.0]])
    planted = _planted(claim("dcpo/response-utilisation"), null)
    assert planted.mean() == pytest.approx(0.2, rel=1e-12)  # twice the threshold of 0.1
    np.testing.assert_allclose(planted - planted[0, 0], null - null[0, 0], rtol=1e-12)


def test_rate_interval_is_the_exact_binomial_one() -> None:
    rows = tuple(ClaimCalibration(f"c{i}", 50, 32, 0, 1.0, 50) for i in range(20))
    low, high = Calibration(rows).rate_interval
    assert low == 0.0
    # None false in n = 1000: the upper end solves (1 - p)^n = 0.025.
    assert high == pytest.approx(1 - 0.025 ** (1 / 1000), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("theory/sapo-gate", "it is exact and has no sampling error"),
        ("bapo/positive-tokens-are-a-minority", "it compares no two arms"),
    ],
)
def test_claims_that_cannot_be_calibrated_say_why(name: str, reason: str) -> None:
    assert name not in calibrated_claims()
    with pytest.raises(ConfigError, match=reason):
        calibrate([name], repeats=1, jobs=1)


def test_repeats_out_of_range() -> None:
    with pytest.raises(ConfigError, match="repeats is 0"):
        calibrate(["dcpo/response-utilisation"], repeats=0)


def test_an_occupied_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x", encoding="utf-8")
    with pytest.raises(RunExistsError):
        calibrate(["dcpo/response-utilisation"], repeats=10_000, out=tmp_path)
