from __future__ import annotations

import numpy as np
import pytest

ONE = {"data.train_batch_size": 64, "actor_rollout_ref.actor.ppo_mini_batch_size": 64}


@pytest.mark.parametrize(("size", "level"), [(1e-5, None), (-5e-4, "warning"), (0.02, "problem")])
def test_the_level_follows_the_size(findings, size, level):
    found = findings("divergence-on-policy", {"kl/old": np.full(20, size)}, **ONE)
    assert [item.level for item in found] == ([] if level is None else [level])


def test_clipped_tokens_are_a_divergence_too(findings):
    (found,) = findings("divergence-on-policy", {"clip/fraction": np.full(20, 0.35)}, **ONE)
    assert found.level == "problem"


def test_without_the_number_of_updates_it_is_silent(findings):
    assert findings("divergence-on-policy", {"kl/old": np.full(20, 0.02)}) == []


def test_stale_responses_are_expected_to_diverge(findings):
    columns = {"kl/old": np.full(20, 0.02), "staleness/mean": np.ones(20)}
    assert findings("divergence-on-policy", columns, **ONE) == []
    given = ONE | {"algorithm.rollout_correction.bypass_mode": True}
    assert findings("divergence-on-policy", {"kl/old": np.full(20, 0.02)}, **given) == []
