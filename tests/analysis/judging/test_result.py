"""The result of a claim, and its row of results.json."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from analysis.claims import run_claim
from analysis.judging.result import (
    ClaimResult,
    ClaimText,
    ClaimVerdict,
    FalsifierResult,
    NullResult,
    Reading,
    WaitingTimes,
)
from analysis.statistics import Verdict
from analysis.trajectories import Figure, Series


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


def full() -> ClaimResult:
    """A result in which everything that can be missing is missing somewhere."""
    text = ClaimText(
        id="a/b",
        paper="A",
        title="t",
        source="s",
        statement="st",
        tier="quick",
        scope="sc",
        recorded="refuted",
        unit="u",
    )
    series = Series(label="arm", x=[0.0, 1.0], mean=[1.0, math.nan], low=[0.5, math.nan], high=[1.5, math.inf])
    return ClaimResult(
        claim=text,
        kind="statistical",
        verdict="inconclusive",
        reason="r",
        estimate=math.nan,
        interval=(0.25, math.inf),
        level=0.99,
        threshold=0.5,
        direction="greater",
        estimand="e",
        seeds=6,
        seeds_needed=None,
        falsifier=FalsifierResult("f", "refuted", math.nan, None),
        notes=("one", "two"),
        protocol_hash="0123",
        setting={"env": "x"},
        seconds=1.5,
        reproduce="testbed verify a/b",
        null=NullResult({"env": "n"}, Reading("e", 0.125, (0.0, 0.25))),
        controls=(Reading("c", math.nan, None),),
        event_times={"arm": WaitingTimes(2, 6, math.inf, (1.0, math.inf), 2.5, 4.0)},
        trend_p_value=0.25,
        p_value=0.125,
        curves=(Figure(title="m", x_label="rollouts", y_label="y", series=[series]),),
        per_seed=(1.0, math.nan, (1.0, math.nan)),
    )


def test_a_row_is_flat_and_has_null_for_every_missing_number() -> None:
    row = full().to_json()
    json.dumps(row, allow_nan=False)
    assert (row["id"], row["paper"], row["recorded"], row["unit"], row["tier"]) == ("a/b", "A", "refuted", "u", "quick")
    assert row["estimate"] is None
    assert row["interval"] == [0.25, None]
    assert row["falsifier"] == {"description": "f", "verdict": "refuted", "estimate": None, "interval": None}
    assert row["null"] == {"setting": {"env": "n"}, "estimand": "e", "estimate": 0.125, "interval": [0.0, 0.25]}
    assert row["controls"] == [{"estimand": "c", "estimate": None, "interval": None}]
    assert row["event_times"]["arm"] == {
        "events": 2,
        "seeds": 6,
        "median": None,
        "median_interval": [1.0, None],
        "restricted_mean": 2.5,
        "horizon": 4.0,
    }
    assert row["curves"][0]["series"][0]["high"] == [1.5, None]
    assert row["per_seed"] == [1.0, None, [1.0, None]]
    assert row["notes"] == ["one", "two"]


@pytest.mark.parametrize("result", [full(), run_claim("theory/sapo-gate")], ids=["statistical", "exact"])
def test_a_result_that_was_read_back_is_the_row_it_was_written_from(result: ClaimResult) -> None:
    row = json.loads(json.dumps(result.to_json()))
    again = ClaimResult.from_json(row)
    assert again.to_json() == result.to_json()
    assert list(again.to_json()) == list(result.to_json())
    assert again.claim == result.claim
    # An infinite number is read back as a missing one; everything else is what it was, NaN included.
    assert repr(again) == repr(result).replace("inf)", "nan)").replace("inf]", "nan]").replace("=inf,", "=nan,")
