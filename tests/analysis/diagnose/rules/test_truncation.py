from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("share", "level"), [(0.2, None), (0.4, "warning"), (0.9, "problem")])
def test_the_level_follows_the_share(findings, share, level):
    found = findings("truncation", {"length/truncated_fraction": np.full(20, share)})
    assert [item.level for item in found] == ([] if level is None else [level])


def test_none_that_ends_by_itself_is_said(findings):
    columns = {"length/truncated_fraction": np.ones(20), "length/terminated_mean": np.zeros(20)}
    (found,) = findings("truncation", columns, engine="trl")
    assert "None ends by itself" in found.statement


def test_verl_counts_the_longest_response_of_a_batch(findings):
    columns = {"length/truncated_fraction": np.full(20, 0.5), "length/max": np.full(20, 900.0)}
    assert findings("truncation", columns, **{"data.max_response_length": 1024}) == []
    assert findings("truncation", columns, **{"data.max_response_length": 900})


def test_its_onset_is_where_it_begins(findings, noise):
    share = np.where(np.arange(60) < 40, 0.02, 0.95) + 0.005 * noise(size=60)
    (found,) = findings("truncation", {"length/truncated_fraction": share})
    assert 39 <= found.since <= 43
