"""The language models that were trained with one setting broken."""

from __future__ import annotations

import json

import pytest

from analysis.diagnose.planted import trained
from analysis.diagnose.planted.measure import RECORD as SIMULATED
from analysis.diagnose.planted.trained import TRAINED, TRAINED_RECORD, measure_trained
from analysis.diagnose.rule import rules

RECORDED = json.loads(TRAINED_RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("cause", TRAINED, ids=lambda cause: cause.name)
def test_every_run_is_a_configuration_that_can_be_built_and_expects_a_rule_that_exists(cause):
    settings = cause.settings(seed=7)
    assert settings.seed == 7
    assert cause.expected in {"", *rules.names()}


def test_the_record_has_every_run_once():
    found = [(run["cause"], run["seed"]) for run in RECORDED]
    assert len(found) == len(set(found))
    assert {name for name, _ in found} == {cause.name for cause in TRAINED}


def test_nineteen_of_twenty_broken_runs_are_named_first_simulated_ones_among_them():
    named = [run["first"] == run["expected"] for run in RECORDED if run["expected"]]
    simulated = json.loads(SIMULATED.read_text(encoding="utf-8"))["causes"]
    named += [run["first"] == cause["expected"] for cause in simulated for run in cause["runs"]]
    assert sum(named) >= 0.95 * len(named)


def test_no_healthy_run_is_called_a_problem():
    assert not [run for run in RECORDED if not run["expected"] and run["worst"] == "problem"]


def test_a_measurement_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    asked = []

    def run(cause, seed):
        asked.append((cause.name, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"cause": cause.name, "seed": seed, "first": None}

    monkeypatch.setattr(trained, "_trained", run)
    record = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        measure_trained(1, 5, record, report=lambda line: None)
    measure_trained(1, 5, record, report=lambda line: None)
    # The third was asked for twice, the first two once.
    assert asked == [(cause.name, 5) for cause in TRAINED[:3]] + [(cause.name, 5) for cause in TRAINED[2:]]
