from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.claims import ExactClaim, StatisticalClaim, claim_names, get_claim, run_claim
from analysis.claims._claim import Falsifier
from analysis.claims._estimands import at_matched, average, between, contrast, difference, final, largest, roughness
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
    assert verdict.verdict == verdict.recorded, verdict.reason
    assert verdict.falsifier["verdict"] == "refuted"


def test_some_claims_are_on_record_as_refuted() -> None:
    assert any(get_claim(name).recorded == "refuted" for name in claim_names())


# -- judging -------------------------------------------------------------------------------------------------------


def test_a_true_claim_is_reproduced_and_its_falsifier_is_not() -> None:
    verdict = run_claim(small_claim())
    assert verdict.verdict == "reproduced"
    assert verdict.falsifier["verdict"] == "refuted"
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
    ],
)
def test_a_claim_that_cannot_be_judged_is_rejected_at_construction(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_claim(**changes)


def test_an_exact_claim_needs_a_sabotaged_measurement() -> None:
    with pytest.raises(ConfigError, match="its falsifier has no measure"):
        ExactClaim(**SHARED, id="test/exact", measure=lambda: 0.0, tolerance=1.0, falsifier=Falsifier("none"))


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


def test_a_claim_file_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "shelf" / "paper.py").write_text(
        "from analysis.claims import ExactClaim\nExactClaim(id='paper/none', paper='P', title='t', source='s')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"shelf/paper\.py cannot be loaded: .*falsifier"):
        Registry("claim", package="shelf").names()
