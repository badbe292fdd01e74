from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("share", "level"), [(0.74, None), (0.8, "warning"), (0.96, "problem")])
def test_the_level_follows_the_share(findings, share, level):
    found = findings("no-signal", {"group/zero_variance_fraction": np.full(30, share)})
    assert [item.level for item in found] == ([] if level is None else [level])


def test_the_parts_too_easy_and_too_hard_are_said_where_they_are_logged(findings):
    columns = {
        "group/zero_variance_fraction": np.full(30, 0.98),
        "group/too_easy_fraction": np.full(30, 0.9),
        "group/too_hard_fraction": np.full(30, 0.08),
    }
    (found,) = findings("no-signal", columns)
    assert "90 % too easy and 8 % too hard" in found.statement
    assert found.extra == {"too_easy": 0.9, "too_hard": 0.08}
    assert found.needs == []


def test_without_the_parts_it_says_what_it_would_take(findings):
    (found,) = findings("no-signal", {"group/zero_variance_fraction": np.ones(30)})
    assert "too easy" not in found.statement
    assert found.needs


def test_equal_extremes_of_the_advantage_are_a_batch_without_signal(findings):
    (found,) = findings("no-signal", {"advantage/max": np.zeros(20), "advantage/min": np.zeros(20)})
    assert found.level == "problem"


def test_the_noise_of_the_gradient_is_that_of_the_groups_that_are_left(findings):
    # 16 % of the groups are left: 1/sqrt(0.16) = 2.5.
    (found,) = findings("no-signal", {"group/zero_variance_fraction": np.full(30, 0.84)})
    assert "2.5 times as noisy" in found.statement


def test_its_onset_is_where_the_share_rises(findings, noise):
    share = np.r_[0.3 + 0.02 * noise(size=30), np.full(30, 1.0)]
    (found,) = findings("no-signal", {"group/zero_variance_fraction": share})
    assert 29 <= found.since <= 33
