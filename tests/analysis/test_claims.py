from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.claims import ExactClaim, StatisticalClaim, claim_names, get_claim, run_claim
from analysis.judging.claim import Falsifier, Null, Tuning
from analysis.judging.estimands import (
    at_matched,
    average,
    between,
    contrast,
    difference,
    exceeds,
    final,
    in_order,
    largest,
    roughness,
    time_to,
)
from analysis.judging.result import ClaimVerdict
from analysis.judging.run import CHOOSING_SEEDS
from analysis.judging.tuning import tune
from analysis.judging.values import judge_values
from analysis.judging.values import lowest_and_highest as filled
from analysis.statistics import VERDICT_LEVEL, Verdict, judge
from analysis.trajectories import Trajectories, by_objective, curve
from testbed.diagnostics import GLOSSARY
from testbed.errors import ConfigError, UnknownNameError
from testbed.registry import Registry

PAPERS = {"bapo", "ce-gppo", "dcpo", "erc", "sapo"}
QUICK: dict[str, Any] = {
    "env": "RareArm-v1(arms=8,contexts=2,rare_probability=0.1)",
    "steps": 6,
    "group_size": 8,
    "epochs": 3,
    "learning_rate": 4.0,
}
SHARED: dict[str, Any] = {
    "paper": "Test",
    "title": "t",
    "source": "s",
    "statement": "s",
    "scope": "s",
    "unit": "reward",
    "recorded": "reproduced",
}


RETURN = difference(final("exact/return"), of="large", minus="tiny")


def small_claim(**changes: Any) -> StatisticalClaim:
    """Training with a large step beats training with a tiny one; the falsifier swaps nothing but the step."""
    fields: dict[str, Any] = SHARED | {
        "id": "test/large-steps",
        "setting": QUICK,
        "arms": {"large": {"objective": "ppo"}, "tiny": {"objective": "ppo", "learning_rate": 0.01}},
        "estimand": difference(final("exact/return"), of="large", minus="tiny"),
        "direction": "greater",
        "threshold": 0.05,
        "falsifier": Falsifier("the same tiny step", {"large": {"objective": "ppo", "learning_rate": 0.01}}),
        "seeds": 8,
    }
    return StatisticalClaim(**(fields | changes))


def trajectories(**columns: list[list[float]]) -> Trajectories:
    """Arrays of steps by seeds as a run table."""
    first = next(iter(columns.values()))
    rows = [
        {"objective": "o", "replica": seed, "seed": seed, "step": step, "updates": step}
        | {name.replace("__", "/"): values[step][seed] for name, values in columns.items()}
        for step in range(len(first))
        for seed in range(len(first[0]))
    ]
    return Trajectories(pd.DataFrame(rows))


# -- the collection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", sorted(PAPERS))
def test_three_claims_a_paper_and_a_statistical_one(paper: str) -> None:
    claims = [get_claim(name) for name in claim_names() if name.startswith(f"{paper}/")]
    assert len(claims) >= 3
    assert any(isinstance(claim, StatisticalClaim) for claim in claims)


def test_the_exact_statements_are_claims() -> None:
    assert {name for name in claim_names() if name.startswith("theory/")} >= {
        "theory/on-policy-identity",
        "theory/gradient-weights",
        "theory/entropy-rate",
        "theory/dcpo-bounds",
        "theory/sapo-gate",
    }


@pytest.mark.parametrize("name", claim_names())
def test_claims_say_what_a_reader_needs(name: str) -> None:
    claim = get_claim(name)
    assert claim.statement.endswith(".")
    assert claim.scope.endswith(".")
    assert claim.falsifier.description.endswith(".")
    if isinstance(claim, StatisticalClaim):
        assert claim.seeds >= 20
        assert set(claim.curves) <= set(GLOSSARY)
        assert {metric for _, metric in claim.acts} <= set(GLOSSARY)


@pytest.mark.parametrize("name", [n for n in claim_names() if isinstance(get_claim(n), ExactClaim)])
def test_exact_claims_hold_and_their_falsifiers_fail(name: str) -> None:
    verdict = run_claim(name)
    assert verdict.verdict == verdict.claim.recorded, verdict.reason
    assert verdict.falsifier.verdict == "refuted"


def test_some_claims_are_on_record_as_refuted() -> None:
    assert any(get_claim(name).recorded == "refuted" for name in claim_names())


# -- judging -------------------------------------------------------------------------------------------------------


def test_a_true_claim_is_reproduced_and_its_falsifier_is_not() -> None:
    verdict = run_claim(small_claim())
    assert verdict.verdict == "reproduced"
    assert verdict.falsifier.verdict == "refuted"
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
    assert verdict.verdict == "refuted"


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


@pytest.mark.parametrize(
    "change", [{"threshold": 0.06}, {"statement": "another"}, {"setting": QUICK | {"steps": 7}}, {"unit": "nats"}]
)
def test_protocol_hash_changes_with_the_protocol(change: dict[str, Any]) -> None:
    assert small_claim().protocol_hash(8, 0) != small_claim(**change).protocol_hash(8, 0)
    assert small_claim().protocol_hash(8, 0) == small_claim().protocol_hash(8, 0)
    assert small_claim().protocol_hash(8, 0) != small_claim().protocol_hash(8, 1)


def test_unknown_claim_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dcpo/token-clip-ratio'"):
        run_claim("dcpo/token-clip-rato")


def test_seeds_out_of_range() -> None:
    with pytest.raises(ConfigError, match="seeds is 0"):
        run_claim("theory/sapo-gate", seeds=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": " "}, "claim test/large-steps: source is empty"),
        ({"unit": ""}, "unit is empty"),
        ({"falsifier": Falsifier("")}, "its falsifier has no description"),
        ({"falsifier": Falsifier("x")}, "its falsifier replaces no arm"),
        ({"falsifier": Falsifier("x", {"big": {}})}, r"the falsifier replaces \['big'\]"),
        ({"acts": (("none", "clip/fraction"),)}, "the estimand reads"),
        ({"id": None}, "claim None: id is empty"),
        ({"source": None}, "source is empty"),
        ({"statement": 3}, "statement is 3; expected text"),
        ({"falsifier": None}, "claim test/large-steps: falsifier is None; a claim that cannot fail is rejected"),
        ({"estimand": None}, "estimand is None; expected an Estimand"),
        ({"threshold": "a"}, "threshold is 'a'; expected a finite number"),
        ({"threshold": math.nan}, "threshold is nan; expected a finite number"),
        ({"threshold": -0.1, "direction": "equivalent"}, "threshold is -0.1; expected a positive number"),
        ({"planted": math.inf}, "planted is inf; expected a finite number"),
        ({"direction": "up"}, "direction is 'up'; expected one of greater, less, equivalent"),
        ({"statistic": "mode"}, "statistic is 'mode'; expected one of mean, iqm"),
        ({"tier": "x"}, "tier is 'x'; expected one of quick, full, networks"),
        ({"recorded": "maybe"}, "recorded is 'maybe'; expected one of reproduced, refuted, inconclusive"),
        ({"seeds": 3}, "seeds is 3; expected a whole number of at least 5; fewer never give a verdict"),
        ({"seeds": 8.0}, "seeds is 8.0"),
        ({"level": 1.0}, "level is 1.0; expected a number between 0 and 1, such as 0.99"),
        ({"setting": QUICK | {"env": "Nope"}}, "claim test/large-steps: unknown environment 'Nope'"),
        ({"setting": QUICK | {"env": "RareArm-v1(arm=8)"}}, "RareArm-v1 has no parameter 'arm'; did you mean 'arms'"),
        ({"setting": QUICK | {"step": 8}}, "unknown argument of simulate 'step'; did you mean 'steps'"),
        (
            {"setting": QUICK | {"steps": 0}},
            "claim test/large-steps: steps is 0; expected a whole number of at least 1",
        ),
        ({"setting": QUICK | {"seeds": 8}}, "unknown argument of simulate 'seeds'"),
        ({"setting": QUICK | {"model": "tabula"}}, "unknown model 'tabula'; did you mean 'tabular'"),
        ({"setting": {}}, "an arm has no env; give it in the setting or in every arm"),
        ({"arms": {"large": {}, "tiny": {}}}, "an arm has no objective"),
        ({"arms": {"large": {"objective": "pop"}, "tiny": {"objective": "ppo"}}}, "unknown objective 'pop'"),
        ({"acts": (("large", "clip/fractions"),)}, "unknown metric 'clip/fractions'; did you mean 'clip/fraction'"),
        ({"curves": ("exact/entropi",)}, "unknown metric 'exact/entropi'; did you mean 'exact/entropy'"),
        ({"null": Null({"env": "NullBandi-v1"}, RETURN)}, "did you mean 'NullBandit-v1'"),
        ({"null": Null({}, difference(final("exact/return"), of="large", minus="none"))}, "the estimand reads"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_rejected_at_construction(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_claim(**changes)


def test_an_exact_claim_needs_a_sabotaged_measurement() -> None:
    exact: dict[str, Any] = SHARED | {"id": "test/exact", "measure": lambda: 0.0, "tolerance": 1.0}
    with pytest.raises(ConfigError, match="its falsifier has no measure"):
        ExactClaim(**exact, falsifier=Falsifier("none"))
    off = Falsifier("off by two", measure=lambda: 2.0)
    for name, value in (("tolerance", math.nan), ("tolerance", "1"), ("measure", 0.0), ("tier", "slow")):
        with pytest.raises(ConfigError, match=f"claim test/exact: {name} is {value!r}; expected"):
            ExactClaim(**exact | {name: value}, falsifier=off)


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


# -- estimands -----------------------------------------------------------------------------------------------------

# Two seeds over four steps; row 0 is the initial policy, where sampled metrics are missing.
RUN = trajectories(
    exact__entropy=[[4.0, 4.0], [3.0, 2.0], [2.0, 1.0], [0.0, 1.0]],
    exact__return=[[0.0, 0.0], [0.5, 0.2], [0.75, 0.4], [1.0, 0.6]],
    clip__fraction=[[math.nan, math.nan], [0.1, 0.0], [0.2, math.nan], [0.3, 0.4]],
)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (final("exact/entropy"), [0.0, 1.0]),
        (average("exact/entropy"), [5 / 3, 4 / 3]),
        # The missing step of the second seed is left out, not counted as 0.
        (average("clip/fraction"), [0.2, 0.2]),
        (largest("clip/fraction"), [0.3, 0.4]),
        # Return 0.6 is 0.4 of the way from 0.5 (H = 3) to 0.75 (H = 2), and the second seed's last value.
        (at_matched("exact/entropy", "exact/return", 0.6), [2.6, 1.0]),
        (at_matched("exact/entropy", "exact/return", 0.9), [0.8, math.nan]),
        (exceeds(largest("clip/fraction"), 0.35), [0.0, 1.0]),
        # One second difference each: 0 - 2·2 + 3 and 1 - 2·1 + 2; a single number has no spread.
        (roughness("exact/entropy"), [0.0, 0.0]),
    ],
)
def test_measures_by_hand(measure: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(measure.read(RUN), expected, rtol=1e-12, atol=1e-15)


def test_roughness_of_a_zigzag() -> None:
    # After the first rollout 0, 1, 0, 1: second differences -2 and 2, standard deviation 2.
    run = trajectories(m=[[9.0], [0.0], [1.0], [0.0], [1.0]])
    assert roughness("m").read(run)[0] == pytest.approx(2.0)


def test_estimands_by_hand() -> None:
    other = trajectories(exact__entropy=[[4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [1.0, 3.0]])
    runs = {"a": RUN, "b": other}
    assert difference(final("exact/entropy"), of="a", minus="b").compute(runs).tolist() == [-1.0, -2.0]
    assert contrast(final("exact/entropy"), of="a", minus="b", times=2.0).compute(runs).tolist() == [-2.0, -5.0]
    assert between(final("exact/return"), final("exact/entropy"), arm="a").compute(runs).tolist() == [1.0, -0.4]
    assert "2 × [b]" in contrast(final("exact/entropy"), of="a", minus="b", times=2.0).description


def test_a_metric_the_run_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no metric 'exact/tv_step'"):
        RUN["exact/tv_step"]


def test_curves_leave_out_what_is_missing() -> None:
    drawn = curve("clip/fraction", {"arm": RUN})
    # Step 0 has no data, step 2 none for the second seed.
    assert drawn["series"][0]["x"] == [1, 3]
    assert drawn["series"][0]["mean"] == pytest.approx([0.05, 0.35])
    # 1.96 · sd/√2 with sd = |0.1 - 0|/√2.
    assert drawn["series"][0]["high"][0] == pytest.approx(0.05 + 1.96 * 0.05)
    assert curve("exact/tv_step", {"arm": RUN})["series"] == []


def test_by_objective_keeps_the_order_of_appearance() -> None:
    table = pd.DataFrame(
        {"objective": ["z", "a"], "replica": [0, 1], "seed": [0, 0], "step": [0, 0], "updates": [0, 0], "m": [1.0, 2.0]}
    )
    assert list(by_objective(table)) == ["z", "a"]


EXACT = {
    "id": "'paper/none'",
    "paper": "'P'",
    "title": "'t'",
    "source": "'s'",
    "statement": "'s'",
    "scope": "'s'",
    "unit": "'u'",
    "recorded": "'reproduced'",
    "falsifier": "Falsifier('f', measure=lambda: 2.0)",
    "measure": "lambda: 0.0",
    "tolerance": "1.0",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"falsifier": None}, "falsifier"),
        ({"source": None}, "source"),
        ({"unit": None}, "unit"),
        ({"falsifier": "None"}, "claim paper/none: falsifier is None"),
        ({"source": "None"}, "claim paper/none: source is empty"),
        ({"unit": "''"}, "claim paper/none: unit is empty"),
        ({"recorded": "'maybe'"}, "claim paper/none: recorded is 'maybe'"),
        ({"tolerance": "make_spec('Nope').states"}, "unknown environment 'Nope'"),
    ],
)
def test_a_claim_file_that_cannot_be_loaded_is_named(
    changes: dict[str, str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A value of None leaves the field out.
    written = ", ".join(f"{name}={value}" for name, value in (EXACT | changes).items() if value is not None)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "shelf" / "paper.py").write_text(
        "from analysis.claims import ExactClaim\nfrom analysis.judging.claim import Falsifier\n"
        f"from envs import make_spec\nExactClaim({written})\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shelf", raising=False)
    with pytest.raises(ConfigError, match=rf"shelf/paper\.py cannot be loaded: .*{message}"):
        Registry("claim", package="shelf").names()
    del sys.modules["shelf"]


def test_a_claim_is_checked_without_making_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.catalogue.Environment.assemble", lambda *_, **__: pytest.fail("tables were made"))
    small_claim(setting=QUICK | {"env": "ModularSum-v1(length=11,modulus=9)"})


@pytest.mark.parametrize(
    ("recorded", "verdict", "agrees"),
    [
        ("reproduced", "reproduced", True),
        ("reproduced", "inconclusive", False),
        ("refuted", "reproduced", False),
        ("inconclusive", "refuted", True),
        ("inconclusive", "broken", False),
        ("inconclusive", "vacuous", False),
    ],
)
def test_what_contradicts_the_record(recorded: Verdict, verdict: ClaimVerdict, agrees: bool) -> None:
    exact = run_claim("theory/sapo-gate")
    found = dataclasses.replace(exact, claim=dataclasses.replace(exact.claim, recorded=recorded), verdict=verdict)
    assert found.as_recorded == agrees


# -- confounders, seeds and missing values -------------------------------------------------------------------------

STATISTICAL = [claim for claim in map(get_claim, claim_names()) if isinstance(claim, StatisticalClaim)]
WITHOUT_NULL = {
    "baselines/length-bias": "a quotient of two entropies is the length of a response",
    "independent/exponential-law-few-actions": "without a reward there is no reward to explain by the entropy",
    "independent/exponential-law-many-actions": "without a reward there is no reward to explain by the entropy",
}
"""Claims whose estimand reads an entropy without being about one."""


@pytest.mark.parametrize("claim", STATISTICAL, ids=lambda claim: claim.id)
def test_a_claim_about_entropy_has_its_null_reward_arm(claim: StatisticalClaim) -> None:
    if "entropy" not in claim.estimand.description or claim.id in WITHOUT_NULL:
        return
    settings = [str({**claim.setting, **arm}["env"]) for arm in claim.arms.values()]
    if all(env.startswith("NullBandit") for env in settings):
        return
    assert claim.null is not None
    assert str({**claim.setting, **claim.null.setting}["env"]).startswith("NullBandit")


@pytest.mark.parametrize("claim", STATISTICAL, ids=lambda claim: claim.id)
def test_an_entropy_at_equal_reward_is_also_read_at_equal_divergence(claim: StatisticalClaim) -> None:
    if "exact/entropy where exact/return" not in claim.estimand.description or claim.id in WITHOUT_NULL:
        return
    assert any("exact/entropy where exact/kl_cumulative" in control.description for control in claim.controls)


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


def test_tuning_seeds_are_among_those_that_never_judge() -> None:
    for claim in STATISTICAL:
        if claim.tuning is not None:
            assert any(claim.tuning.master_seed in reserved for reserved in CHOOSING_SEEDS)


def test_a_best_rate_at_the_edge_of_its_grid_is_said() -> None:
    tuned = small_claim(
        arms={"large": {"objective": "ppo"}, "tiny": {"objective": "reinforce"}},
        falsifier=Falsifier("the other objective", {"large": {"objective": "reinforce"}}),
        tuning=Tuning((0.01, 4.0), final("exact/return"), seeds=4),
    )
    notes = run_claim(tuned).notes
    assert "The best learning rate of large, 4, is the last of its grid, so a better one may lie beyond." in notes
    wider = dataclasses.replace(tuned, tuning=Tuning((0.01, 4.0, 1e-9), final("exact/return")))
    chosen = tune(wider, tuned.arms)
    assert chosen.arms["large"]["learning_rate"] == 4.0
    assert chosen.at_the_edge == ()


def test_one_missing_seed_in_a_hundred_is_given_the_worst_of_the_others() -> None:
    claim = small_claim(threshold=0.5)
    values = np.full(200, 1.0) + np.random.default_rng(0).normal(0, 0.1, 200)
    values[7] = math.nan
    judged = judge_values(claim, values)
    assert judged.verdict == "reproduced"
    assert "no value in 1 of 200 seeds" in judged.reason
    # The bounds reach from those with the lowest value of any seed in its place to those with the highest.
    known = values[~np.isnan(values)]
    low, high = (judge(np.append(known, end), "greater", 0.5, VERDICT_LEVEL) for end in (known.min(), known.max()))
    assert judged.low == pytest.approx(low.low, abs=2e-3)
    assert judged.high == pytest.approx(high.high, abs=2e-3)
    values[8:10] = math.nan
    assert judge_values(claim, values).verdict == "inconclusive", "three of two hundred are too many"


def test_a_missing_seed_that_could_decide_leaves_it_open() -> None:
    # Without the missing seed the interval lies above the threshold; one more -60 among the others takes it below.
    values = np.append(np.full(150, 1.0) + np.random.default_rng(1).normal(0, 0.01, 150), [-20.0, math.nan])
    claim = small_claim(threshold=0.1, statistic="mean")
    known = judge(values[~np.isnan(values)], "greater", 0.1, VERDICT_LEVEL)
    judged = judge_values(claim, values)
    assert judged.low < known.low
    assert judged.verdict == "inconclusive"


def test_a_missing_seed_of_an_order_takes_the_extreme_steps() -> None:
    values = np.array([[0.0, 1.0, 3.0], [5.0, 7.0, 8.0], [math.nan, 1.0, 2.0]])
    low, high = filled(values)
    # Steps of the known seeds: 1, 2 and 2, 1.
    assert np.diff(low[2]).tolist() == [1.0, 1.0]
    assert np.diff(high[2]).tolist() == [2.0, 2.0]
    assert (low[:2] == values[:2]).all()


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
