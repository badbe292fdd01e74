from __future__ import annotations

import numpy as np
import pytest


def test_zero_throughout_is_a_problem(findings):
    (found,) = findings("learning-rate-zero", {"learning_rate": np.zeros(10)})
    assert (found.level, found.since) == ("problem", 1)


@pytest.mark.parametrize(("zeros", "level"), [(20, "problem"), (5, "warning")])
def test_a_schedule_that_ends_early(findings, zeros, level):
    (found,) = findings("learning-rate-zero", {"learning_rate": [1e-6] * (100 - zeros) + [0.0] * zeros})
    assert (found.level, found.since) == (level, 101 - zeros)


def test_the_last_zero_of_a_linear_schedule_is_none(findings):
    assert findings("learning-rate-zero", {"learning_rate": np.linspace(1e-6, 0, 100)}) == []


def test_a_warm_up_from_zero_is_none(findings):
    assert findings("learning-rate-zero", {"learning_rate": [0.0, *[1e-6] * 50]}) == []
