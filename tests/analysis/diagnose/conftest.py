"""Small logs, written the way engines write them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.diagnose.configuration import Configuration
from analysis.diagnose.engine import engines
from analysis.diagnose.log import Log
from analysis.diagnose.names import Key
from analysis.diagnose.rule import Case, rules
from analysis.diagnose.series import Series


@pytest.fixture
def trainer_state(tmp_path):
    """Write rows as a trainer_state.json; returns its path."""

    def write(rows, name="trainer_state.json", **top):
        path = tmp_path / name
        content = {"global_step": len(rows), "logging_steps": 1, "log_history": rows, **top}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def verl_file(tmp_path):
    """Write rows as verl's file logger does: nested, NaN as null."""

    def write(rows, name="run.jsonl"):
        path = tmp_path / name
        lines = [json.dumps({"step": step, "data": row}) for step, row in enumerate(rows, 1)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def findings():
    """Ask one rule about a log given by canonical names: `findings("mismatch", {name: values}, setting=…)`."""

    def ask(rule, columns, engine="verl", **settings):
        configuration = Configuration(settings, "the test")
        configuration.resolve(engines[engine])
        log = Log("a log", engines[engine], configuration=configuration)
        for name, values in columns.items():
            steps = range(1, len(values) + 1)
            log.series[name] = Series.of(name, list(steps), list(values))
            log.keys[name] = Key(name, name)
        case = Case(log)
        return [] if rules[rule].missing(case) else list(rules[rule].check(case))

    return ask


@pytest.fixture
def noise():
    """Normal numbers that are the same in every run of a test."""
    return np.random.default_rng(0).normal
