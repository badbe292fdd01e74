from __future__ import annotations

import numpy as np


def test_a_mean_near_nothing_beside_zeros_is_rejection(findings):
    columns = {
        "sampler/weight_mean": np.full(20, 0.1),
        "sampler/weight_min": np.zeros(20),
        "sampler/weight_max": np.full(20, 1.8),
        "sampler/log_abs_mean": np.full(20, 0.003),
    }
    (found,) = findings("rejected-sequences", columns)
    assert found.level == "problem"
    assert "rejected are about 90 %" in found.statement
    assert "token by token both agree" in found.statement


def test_a_logged_share_needs_nothing_else(findings):
    (found,) = findings("rejected-sequences", {"sampler/rejected_fraction": np.full(20, 0.3)})
    assert found.level == "warning"


def test_a_low_mean_without_zeros_is_no_rejection(findings):
    columns = {"sampler/weight_mean": np.full(20, 0.5), "sampler/weight_min": np.full(20, 0.2)}
    assert findings("rejected-sequences", columns) == []


def test_without_the_smallest_weight_it_is_silent(findings):
    assert findings("rejected-sequences", {"sampler/weight_mean": np.full(20, 0.1)}) == []
