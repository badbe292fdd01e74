"""From a claim to its result."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from analysis.claims import ExactClaim, run_claim
from analysis.judging.claim import Falsifier
from analysis.judging.estimands import at_matched, difference, final, in_order, time_to
from analysis.statistics import VERDICT_LEVEL
from testbed.errors import ConfigError, UnknownNameError
from tests.analysis.judging.small import QUICK, SHARED, small_claim


def test_a_true_claim_is_reproduced_and_its_falsifier_is_not() -> None:
    verdict = run_claim(small_claim())
    assert verdict.verdict == "reproduced"
    # Arms that are the same differ by 0 in every seed, which eight equal values do not show.
    assert verdict.falsifier.verdict == "inconclusive"
    assert verdict.interval is not None
    assert verdict.interval[0] > 0.05
    assert len(verdict.per_seed) == 8
    assert verdict.estimate == pytest.approx(np.mean(verdict.per_seed), rel=1e-12)


def test_the_opposite_claim_is_refuted() -> None:
    opposite = small_claim(
        direction="less", threshold=-0.05, estimand=difference(final("exact/return"), of="large", minus="tiny")
    )
    assert run_claim(opposite).verdict == "refuted"


def test_a_threshold_at_the_estimate_is_inconclusive_and_says_how_many_seeds() -> None:
    estimate = run_claim(small_claim()).estimate
    verdict = run_claim(small_claim(threshold=estimate + 1e-3))
    assert verdict.verdict == "inconclusive"
    assert verdict.seeds_needed is not None
    assert verdict.seeds_needed > 8


def test_an_objective_against_itself_shows_exactly_nothing() -> None:
    verdict = run_claim(small_claim(arms={"large": {"objective": "ppo"}, "tiny": {"objective": "ppo"}}))
    assert verdict.per_seed == (0.0,) * 8
    assert (verdict.verdict, verdict.seeds_needed) == ("inconclusive", 528)
    assert verdict.interval is None


def test_a_claim_whose_falsifier_passes_is_broken() -> None:
    verdict = run_claim(small_claim(falsifier=Falsifier("nothing is sabotaged", {"large": {"objective": "ppo"}})))
    assert verdict.verdict == "broken"
    assert "cannot tell true from false" in verdict.reason


def test_a_mechanism_that_never_acts_is_vacuous() -> None:
    verdict = run_claim(
        small_claim(
            arms={
                "large": {"objective": "ppo(clip_low=1e9,clip_high=1e9)"},
                "tiny": {"objective": "ppo", "learning_rate": 0.01},
            },
            acts=(("large", "clip/fraction"),),
        )
    )
    assert verdict.verdict == "vacuous"
    assert "clip/fraction of arm large was never above 0" in verdict.reason


def test_ratios_of_one_are_vacuous() -> None:
    with pytest.warns(UserWarning, match="every probability ratio was exactly 1"):
        verdict = run_claim(small_claim(setting=QUICK | {"epochs": 1}))
    assert verdict.verdict == "vacuous"
    assert "every probability ratio was 1" in verdict.reason


def test_four_seeds_are_never_a_verdict() -> None:
    verdict = run_claim(small_claim(), seeds=4)
    assert verdict.verdict == "inconclusive"
    assert verdict.interval is None
    assert "at least 5" in verdict.reason


def test_a_seed_without_a_value_gives_no_verdict() -> None:
    claim = small_claim(estimand=difference(at_matched("exact/entropy", "exact/return", 2.0), of="large", minus="tiny"))
    verdict = run_claim(claim)
    assert verdict.verdict == "inconclusive"
    assert "no value in 8 of 8 seeds" in verdict.reason


def test_verdict_is_the_same_when_repeated_and_json_has_no_nan() -> None:
    first, second = (run_claim(small_claim()).to_json() for _ in range(2))
    for row in (first, second):
        row.pop("seconds")
    assert first == second
    four = run_claim(small_claim(), seeds=4).to_json()
    assert four["interval"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in four.values())


def test_unknown_claim_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dcpo/token-clip-ratio'"):
        run_claim("dcpo/token-clip-rato")


def test_seeds_out_of_range() -> None:
    with pytest.raises(ConfigError, match="seeds is 0"):
        run_claim("theory/sapo-gate", seeds=0)


def test_an_exact_claim_with_a_missing_number_is_refuted() -> None:
    claim = ExactClaim(
        **SHARED,
        id="test/exact",
        measure=lambda: math.nan,
        tolerance=1.0,
        falsifier=Falsifier("off by two", measure=lambda: 2.0),
    )
    assert run_claim(claim).verdict == "refuted"
    passing = dataclasses.replace(claim, measure=lambda: 0.5, falsifier=Falsifier("passes", measure=lambda: 0.5))
    assert run_claim(passing).verdict == "broken"


def test_controls_and_the_null_arm_are_reported_without_a_verdict() -> None:
    control = difference(at_matched("exact/entropy", "exact/kl_cumulative", 1e-3), of="large", minus="tiny")
    absent = difference(at_matched("exact/entropy", "exact/kl_cumulative", 1e6), of="large", minus="tiny")
    verdict = run_claim(small_claim(controls=(control, absent)))
    present, missing = verdict.controls
    assert present.estimand == control.description
    assert math.isnan(missing.estimate)
    assert missing.interval is None


@pytest.mark.parametrize("seed", [101, 10_001, 20_000, 20_999])
def test_seeds_that_chose_something_never_judge(seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"seed is {seed}, with which .* chosen; a verdict needs seeds"):
        run_claim(small_claim(), seed=seed)


def test_waiting_times_are_shown_as_a_kaplan_meier_curve() -> None:
    waiting = small_claim(
        estimand=difference(time_to("exact/return", 0.6), of="large", minus="tiny"),
        direction="less",
        threshold=-0.5,
    )
    verdict = run_claim(waiting)
    assert verdict.event_times is not None
    tiny, large = verdict.event_times["tiny"], verdict.event_times["large"]
    assert (tiny.events, tiny.seeds) == (0, 8), "with the tiny step no run gets there"
    assert large.events > 0
    (figure,) = [item for item in verdict.curves if item["title"].startswith("Kaplan-Meier")]
    falling = dict(zip([s["label"] for s in figure["series"]], [s["mean"] for s in figure["series"]], strict=True))
    assert falling["tiny"] == [1.0, 1.0]
    assert falling["large"][0] == 1.0
    assert falling["large"][-1] == pytest.approx(1 - large.events / 8)
    assert verdict.to_json()["event_times"]["tiny"]["median"] is None


def test_an_order_has_a_p_value_and_a_trend() -> None:
    arms = {str(rate): {"objective": "ppo", "learning_rate": rate} for rate in (0.01, 1.0, 4.0)}
    ordered = small_claim(
        arms=arms,
        estimand=in_order(final("exact/return"), list(arms)),
        statistic="smallest step",
        threshold=0.01,
        falsifier=Falsifier("all the same", {"4.0": arms["0.01"]}),
    )
    verdict = run_claim(ordered)
    assert verdict.p_value is not None
    assert (verdict.p_value < (1 - VERDICT_LEVEL) / 2) == (verdict.verdict == "reproduced")
    assert verdict.trend_p_value is not None
    assert verdict.trend_p_value < 0.05
