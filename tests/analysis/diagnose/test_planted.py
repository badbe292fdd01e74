from __future__ import annotations

import json

import pytest

from analysis.diagnose.engine import engines
from analysis.diagnose.planted.causes import CAUSES
from analysis.diagnose.planted.measure import RECORD
from analysis.diagnose.rule import rules

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))


def test_every_rule_has_a_planted_cause():
    assert {cause.expected for cause in CAUSES} == set(rules.names())


def test_causes_name_engines_that_exist():
    assert {engine for cause in CAUSES for engine in cause.engines} <= set(engines.names())


def test_the_record_is_of_these_causes():
    assert [cause["name"] for cause in RECORDED["causes"]] == [cause.name for cause in CAUSES]


def test_nineteen_of_twenty_causes_are_named_first():
    runs = [run["first"] == cause["expected"] for cause in RECORDED["causes"] for run in cause["runs"]]
    assert len(runs) >= 100
    assert sum(runs) >= 0.95 * len(runs)


def test_one_healthy_run_in_a_hundred_at_most_is_called_a_problem():
    worst = [run["worst"] for run in RECORDED["healthy"]]
    assert len(worst) >= 100
    assert worst.count("problem") <= 0.01 * len(worst)


def test_the_change_points_rate_is_as_stated_where_neighbours_hardly_correlate():
    for row in RECORDED["change_point"]:
        if row["correlation"] <= 0.3:
            assert row["found"] <= 0.01 * row["repeats"], row


@pytest.mark.slow
def test_a_planted_cause_is_the_same_for_the_same_seed():
    cause = next(item for item in CAUSES if item.name == "a hole in the grader")
    first, second = (cause.plant(1, 905)[0] for _ in range(2))
    assert first.onset == second.onset
    assert first.rows["evaluation/reward"].tobytes() == second.rows["evaluation/reward"].tobytes()
