"""Threads by size and load."""

from __future__ import annotations

import os

import pytest

from testbed.engines.threads import choose_threads, idle_cores, wait_passively
from tests.extras import needs


@pytest.mark.parametrize(
    ("parameters", "cores", "idle", "expected"),
    [
        (100_000, 2, 2.0, 2),
        (100_000, 2, 0.4, 1),
        (9_999_999, 16, 16.0, 2),
        (10_000_000, 16, 15.9, 16),
        (10_000_000, 2, 0.1, 1),
        (10_000_000, 2, 1.4, 1),
        (10_000_000, 2, 2.0, 2),
    ],
)
def test_threads_are_the_idle_cores_and_few_for_a_small_model(
    parameters: int, cores: int, idle: float, expected: int
) -> None:
    assert choose_threads(parameters, cores, idle).number == expected


def test_idle_cores_are_among_those_there_are() -> None:
    needs("accelerate")
    cores, idle = idle_cores(0.01)
    assert 0 <= idle <= cores
    assert cores >= 1


def test_a_policy_that_was_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
