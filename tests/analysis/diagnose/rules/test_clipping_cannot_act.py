from __future__ import annotations

import numpy as np

ONE = {"data.train_batch_size": 64, "actor_rollout_ref.actor.ppo_mini_batch_size": 64}
FOUR = {"data.train_batch_size": 256, "actor_rollout_ref.actor.ppo_mini_batch_size": 64}


def test_one_update_and_no_clipped_token(findings):
    (found,) = findings("clipping-cannot-act", {"clip/fraction": np.zeros(10)}, **ONE)
    assert (found.level, found.needs) == ("warning", [])


def test_without_a_configuration_it_says_what_it_would_take(findings):
    (found,) = findings("clipping-cannot-act", {"clip/fraction": np.zeros(10)})
    assert found.level == "note"
    assert "ppo_mini_batch_size" in found.needs[0]


def test_a_ratio_of_one_proves_it(findings):
    (found,) = findings("clipping-cannot-act", {"clip/fraction": np.zeros(10), "kl/old": np.zeros(10)})
    assert found.level == "warning"


def test_several_updates_are_not_its_matter(findings):
    assert findings("clipping-cannot-act", {"clip/fraction": np.zeros(10)}, **FOUR) == []


def test_a_clipped_token_or_a_divergence_speaks_against_it(findings):
    assert findings("clipping-cannot-act", {"clip/fraction": [0.0] * 9 + [0.001]}) == []
    assert findings("clipping-cannot-act", {"clip/fraction": np.zeros(10), "kl/old": np.full(10, 0.01)}) == []


def test_the_configuration_alone_is_a_note(findings):
    (found,) = findings("clipping-cannot-act", {"reward/mean": np.ones(10)}, **ONE)
    assert found.level == "note"


def test_without_either_it_is_silent(findings):
    assert findings("clipping-cannot-act", {"reward/mean": np.ones(10)}) == []


def test_sapo_logs_a_share_of_zero_whatever_happens(findings):
    given = {"actor_rollout_ref.actor.policy_loss.loss_mode": "sapo"}
    assert findings("clipping-cannot-act", {"clip/fraction": np.zeros(10)}, **given) == []
