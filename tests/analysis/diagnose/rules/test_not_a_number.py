from __future__ import annotations

import numpy as np

NAN = float("nan")


def test_a_loss_of_zero_beside_a_gradient_that_is_not_a_number_is_a_hidden_one(findings):
    loss = [0.1] * 10 + [0.0] * 2 + [0.1] * 88
    norm = [1.0] * 10 + [NAN] * 2 + [1.0] * 88
    (found,) = findings("not-a-number", {"loss": loss, "gradient/norm": norm})
    # Two of a hundred rows and finite since: only the loss of 0 makes it a problem.
    assert (found.level, found.since) == ("problem", 11)
    assert "running mean" in found.statement


def test_a_single_value_long_ago_is_a_warning(findings):
    (found,) = findings("not-a-number", {"gradient/norm": [1.0] * 10 + [float("inf")] + [1.0] * 89})
    assert found.level == "warning"


def test_finite_values_are_fine(findings):
    assert findings("not-a-number", {"loss": np.zeros(20), "gradient/norm": np.ones(20)}) == []


def test_it_is_silent_without_its_signals(findings):
    assert findings("not-a-number", {"length/mean": [NAN] * 20}) == []


def test_a_gradient_that_vanishes_from_the_log_is_a_warning(findings):
    columns = {"gradient/norm": np.ones(30), "loss": np.ones(30), "reward/mean": np.linspace(0, 1, 60)}
    (found,) = findings("not-a-number", columns)
    assert (found.level, found.since) == ("warning", 31)
