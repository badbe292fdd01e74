from __future__ import annotations

import numpy as np


def falling(noise, last=0.02, rows=80):
    """0.6 nats for half of the run, then an exponential fall."""
    at = np.maximum(np.arange(rows) - rows // 2, 0) / (rows // 2)
    return 0.6 * (last / 0.6) ** at * np.exp(0.02 * noise(size=rows))


def test_a_fall_to_a_thirtieth_is_a_problem_with_its_onset(findings, noise):
    (found,) = findings("entropy-collapse", {"entropy/mean": falling(noise)})
    assert found.level == "problem"
    assert 30 <= found.since <= 48


def test_a_fall_to_a_fifth_is_a_warning_with_a_time_to_the_floor(findings, noise):
    (found,) = findings("entropy-collapse", {"entropy/mean": falling(noise, last=0.12)})
    assert found.level == "warning"
    floor = found.extra["floor"]
    # The last value is 0.6·5^(-39/40) = 0.125; by the same factor (1/5 in 40 steps) a tenth of 0.6 is reached
    # ln(0.125/0.06)/ln(5)·40 = 18.2 steps later.
    assert floor["steps_low"] < 18.2 < floor["steps_high"]


def test_a_slow_fall_is_fine(findings, noise):
    assert findings("entropy-collapse", {"entropy/mean": np.linspace(0.6, 0.3, 60) + 0.01 * noise(size=60)}) == []


def test_the_cause_is_the_class_of_tokens_that_is_removed(findings, noise):
    rows = 80
    columns = {
        "entropy/mean": falling(noise),
        "clip/high_fraction": np.full(rows, 0.02),
        "clip/low_fraction": np.zeros(rows),
    }
    (found,) = findings("entropy-collapse", columns)
    assert "what raises entropy" in found.extra["cause"]
    assert found.remedy.startswith("Raise the upper bound")
    columns["clip/high_fraction"] = np.zeros(rows)
    (found,) = findings("entropy-collapse", columns)
    assert "clipping is not the cause" in found.extra["cause"]


def test_it_is_silent_when_entropy_starts_at_nothing(findings):
    assert findings("entropy-collapse", {"entropy/mean": np.linspace(0.009, 0.0001, 40)}) == []
