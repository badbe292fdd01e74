from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from analysis import calibration
from analysis.calibration import (
    Calibration,
    ClaimCalibration,
    _moved,
    _null_sides,
    _truth,
    calibrate,
    calibrated_claims,
    reason_to_skip,
)
from analysis.claims import StatisticalClaim, claim_names, get_claim
from analysis.judging.arms import run_arms
from analysis.judging.estimands import within
from testbed.errors import ConfigError, RunExistsError


def claim(name: str) -> StatisticalClaim:
    found = get_claim(name)
    assert isinstance(found, StatisticalClaim)
    return found


def row(name: str, repeats: int = 50, **changes: object) -> ClaimCalibration:
    made = ClaimCalibration(name, repeats, 32, "itself", "does not hold", 0, 100, 0, 1.0, 100, paired=False)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_claim_is_calibrated_and_the_result_saved(tmp_path: Path) -> None:
    done = calibrate(["dcpo/response-utilisation"], repeats=3, jobs=1, out=tmp_path / "c", command="testbed calibrate")
    (found,) = done.claims
    assert (found.repeats, found.null, found.truth, found.false_verdicts) == (3, "itself", "does not hold", 0)
    assert found.power == 1.0, "an effect of twice the threshold over 32 seeds is far outside the noise here"
    saved = json.loads((tmp_path / "c" / "calibration.json").read_text(encoding="utf-8"))
    assert saved["null_verdicts"] == 3


def test_an_interrupted_calibration_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "c"
    first = calibrate(["baselines/noise-boundary-logarithmic"], repeats=2, jobs=1, out=out)
    with pytest.raises(RunExistsError):
        calibrate(["baselines/noise-boundary-logarithmic"], repeats=2, jobs=1, out=out)

    def refuse(*_: object) -> None:
        raise AssertionError("a finished claim was run again")

    monkeypatch.setattr(calibration, "_calibrate_one", refuse)
    assert calibrate(["baselines/noise-boundary-logarithmic"], repeats=2, jobs=1, out=out, resume=True) == first
    # Another number of repetitions is another calibration.
    with pytest.raises(AssertionError, match="run again"):
        calibrate(["baselines/noise-boundary-logarithmic"], repeats=3, jobs=1, out=out, resume=True)


def test_where_arms_are_not_measured_alike_the_falsifier_is_the_null_run() -> None:
    judged = claim("erc/mask-share")
    assert calibration._null_arms(judged)["erc"] == judged.falsifier.arms["erc"]
    compared = claim("sapo/staleness-reward-equal-rate")
    assert calibration._null_arms(compared) == {"sapo": {"objective": "gspo"}, "gspo": {"objective": "gspo"}}


def test_the_two_sides_differ_by_chance() -> None:
    sides = _null_sides(claim("dcpo/response-utilisation"), 6)
    left, right = (side["advantage/nonzero_fraction"][-1] for side in sides.values())
    assert (left != right).any(), "an objective against itself on the same seeds would be trivially equal"


@pytest.mark.parametrize(
    ("direction", "threshold", "mean", "truth"),
    [
        ("greater", 0.5, 0.0, "does not hold"),
        # "At most a little worse" is true of an arm against itself, so there "refuted" is the false verdict.
        ("greater", -0.5, 0.0, "holds"),
        ("greater", 0.0, 0.0, "on the threshold"),
        ("equivalent", 0.5, 0.0, "holds"),
        ("less", -0.5, -1.0, "holds"),
    ],
)
def test_what_is_true_of_a_null_run(direction: str, threshold: float, mean: float, truth: str) -> None:
    judged = dataclasses.replace(
        claim("dcpo/response-utilisation"), direction=direction, threshold=threshold, planted=1.0
    )
    noise = np.random.default_rng(0).normal(size=(20, 32))
    # The sample mean is exactly the one given.
    assert _truth(judged, list(noise - noise.mean() + mean)) == truth


def test_false_verdicts_are_counted_on_the_side_that_is_not_true(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = claim("sapo/staleness-reward-equal-rate")
    noise = np.random.default_rng(0).normal(size=(20, 32)) * 1e-3
    # Eighteen repetitions of no effect, one with an effect above the threshold of 0.05, which is reproduced and false,
    # and one with an effect below it, which is refuted and true.
    repetitions = [*noise[:18], noise[18] + 0.1, noise[19] - 0.1]
    same = run_arms(judged.setting | {"steps": 1}, {"sapo": judged.arms["sapo"]}, 5, 0)["sapo"]
    monkeypatch.setattr(calibration, "_null_sides", lambda *_: {"sapo": same, "gspo": same})
    monkeypatch.setattr(calibration, "_repetitions", lambda *_: repetitions)
    found = calibration._calibrate_one(judged, len(repetitions), None)  # type: ignore[arg-type]
    assert (found.truth, found.false_verdicts) == ("does not hold", 1)


def test_planting_moves_the_mean_and_nothing_else() -> None:
    null = np.array([[1.0, 2.0], [3.0, 6.0]])
    planted = np.stack(_moved(claim("dcpo/response-utilisation"), list(null), 0.2))
    assert planted.mean() == pytest.approx(0.2, rel=1e-12)
    np.testing.assert_allclose(planted - planted[0, 0], null - null[0, 0], rtol=1e-12)


def test_planting_an_order_makes_every_step_the_effect() -> None:
    null = [np.random.default_rng(seed).normal(size=(6, 4)) for seed in range(3)]
    steps = np.diff(np.stack(_moved(claim("ce-gppo/order-of-decay"), null, 0.1)).mean((0, 1)))
    assert steps == pytest.approx([0.1] * 3, rel=1e-9)


def test_a_constant_is_moved_without_a_rounding_error() -> None:
    moved = _moved(claim("bapo/search-moves-at-equal-lengths"), [np.full(20, 1.2)] * 3, 1.25)
    assert all((values == 1.25).all() for values in moved)


def test_the_power_is_of_samples_of_the_claims_own_number() -> None:
    judged = dataclasses.replace(claim("dcpo/response-utilisation"), seeds=600)
    repetitions = [np.arange(32.0) + 1000 * index for index in range(3)]
    pool = np.concatenate(repetitions)
    judging, drawn = calibration._drawn(judged, repetitions, 0.5)
    assert judging is judged
    assert [len(values) for values in drawn] == [600] * calibration.DRAWS
    # It is the mean of what is drawn from that is the effect, so that a draw's own mean scatters about it.
    assert np.isin(np.concatenate(drawn).round(9), (pool - pool.mean() + 0.5).round(9)).all()
    assert len({values.mean() for values in drawn}) == calibration.DRAWS


def test_a_declared_support_moves_with_the_values() -> None:
    judged = claim("dcpo/response-utilisation")
    declared = dataclasses.replace(judged, estimand=within(judged.estimand, -1.0, 1.0))
    repetitions = [np.array([0.5, -0.5, 1.0, 0.2]), np.array([0.1, -1.0, 0.0, 0.5])]
    # Their mean is 0.1; with an effect of 0.4 everything moves by 0.3.
    judging, drawn = calibration._drawn(declared, repetitions, 0.4)
    assert judging.estimand.support == pytest.approx((-0.7, 1.3), rel=1e-12)
    assert np.concatenate(drawn).min() == pytest.approx(-0.7, rel=1e-12)


@pytest.mark.parametrize(("same", "truth"), [(0.0, "does not hold"), (0.25, "holds"), (0.125, "on the threshold")])
def test_what_every_null_run_shares_is_known(same: float, truth: str) -> None:
    judged = dataclasses.replace(claim("dcpo/response-utilisation"), direction="greater", threshold=0.125)
    assert _truth(judged, [np.full(6, same)] * 3) == truth
    # Of an order it is the smallest step; the seeds differ.
    ordered = dataclasses.replace(judged, statistic="smallest step")
    assert _truth(ordered, [np.arange(6.0)[:, None] + np.array([0.0, 1.0, 1.0 + same])] * 3) == truth
    falling = dataclasses.replace(ordered, direction="less", threshold=-0.125)
    assert _truth(falling, [np.arange(6.0)[:, None] - np.array([0.0, 1.0, 1.0 + same])] * 3) == truth


def test_power_and_verdicts_at_the_threshold_are_shares_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    # With a spread of one, 400 seeds and an effect of 0.21 above the threshold, the lower bound at 99 % clears it with
    # probability Phi(0.21 * 20 - 2.58) = 0.95; over 100 draws that scatters by 0.022.
    judged = dataclasses.replace(claim("sapo/staleness-reward-equal-rate"), seeds=400, threshold=0.5, planted=0.71)
    noise = np.random.default_rng(1).normal(size=(20, 32))
    noise = (noise - noise.mean()) / noise.std()
    same = run_arms(judged.setting | {"steps": 1}, {"sapo": judged.arms["sapo"]}, 5, 0)["sapo"]
    monkeypatch.setattr(calibration, "_null_sides", lambda *_: {"sapo": same, "gspo": same})
    monkeypatch.setattr(calibration, "_repetitions", lambda *_: list(noise))
    found = calibration._calibrate_one(judged, 20, None)  # type: ignore[arg-type]
    assert found.draws == 100
    assert found.power == pytest.approx(0.95, abs=0.05)
    assert found.at_threshold is not None
    # Nominal is one in a hundred; ten have a probability of 1e-7.
    assert found.at_threshold < 10


def test_rate_interval_is_the_exact_binomial_one() -> None:
    low, high = Calibration(tuple(row(f"c{index}") for index in range(20))).rate_interval
    assert low == 0.0
    # None false in n = 1000: the upper end solves (1 - p)^n = 0.025.
    assert high == pytest.approx(1 - 0.025 ** (1 / 1000), rel=1e-9)


def test_yes_or_no_outcomes_are_left_out_at_the_threshold() -> None:
    done = Calibration((row("a", at_threshold=2), row("b", at_threshold=None, found=None)))
    assert done.at_threshold == (2, 100)
    assert done.claims[1].power is None


def test_every_statistical_claim_without_a_network_is_calibrated() -> None:
    left_out = {name: reason_to_skip(name) for name in claim_names() if reason_to_skip(name) is not None}
    for name, reason in left_out.items():
        found = get_claim(name)
        networks = isinstance(found, StatisticalClaim) and found.tier == "networks"
        assert reason == (
            "its policies are networks, and repeating it would take hours"
            if networks
            else "it is exact and has no sampling error"
        )
    assert len(calibrated_claims()) + len(left_out) == len(claim_names())


def test_claims_that_cannot_be_calibrated_say_why() -> None:
    with pytest.raises(ConfigError, match="it is exact and has no sampling error"):
        calibrate(["theory/sapo-gate"], repeats=1, jobs=1)
    with pytest.raises(ConfigError, match="its policies are networks"):
        calibrate(["sapo/needs-no-replay"], repeats=1, jobs=1)


def test_repeats_out_of_range() -> None:
    with pytest.raises(ConfigError, match="repeats is 0"):
        calibrate(["dcpo/response-utilisation"], repeats=0)


def test_resuming_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="resume without out"):
        calibrate(["dcpo/response-utilisation"], repeats=1, resume=True)


def test_an_occupied_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x", encoding="utf-8")
    with pytest.raises(RunExistsError):
        calibrate(["dcpo/response-utilisation"], repeats=10_000, out=tmp_path)


@pytest.mark.parametrize(("more", "draws", "kept"), [(0, 100, True), (1, 100, False), (0, 20, False)])
def test_a_claim_with_other_numbers_of_seeds_or_draws_is_calibrated_again(
    more: int, draws: int, kept: bool, tmp_path: Path
) -> None:
    name = "dcpo/token-clip-ratio"
    seeds = claim(name).seeds + more
    left = dataclasses.asdict(row(name, repeats=20, seeds=seeds, draws=draws))
    protocol = claim(name).protocol_hash(seeds, calibration.MASTER_SEED)
    (tmp_path / "claims").mkdir()
    file = tmp_path / "claims" / "dcpo--token-clip-ratio.json"
    file.write_text(json.dumps({"protocol": protocol} | left), encoding="utf-8")
    assert (name in calibration._already_finished(tmp_path, [name], 20)) == kept
