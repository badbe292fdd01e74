"""The result of a claim, and its row of results.json."""

from __future__ import annotations

import dataclasses

import pytest

from analysis.claims import run_claim
from analysis.judging.result import ClaimVerdict
from analysis.statistics import Verdict


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
