from __future__ import annotations

import numpy as np

FOUR = {"data.train_batch_size": 256, "actor_rollout_ref.actor.ppo_mini_batch_size": 64}


def test_several_updates_and_no_divergence_at_all(findings):
    (found,) = findings("ratio-constant", {"kl/old": np.zeros(10), "gradient/norm": np.ones(10)}, **FOUR)
    assert found.level == "problem"


def test_without_the_number_of_updates_it_is_a_note(findings):
    (found,) = findings("ratio-constant", {"ratio/mean": np.ones(10)})
    assert found.level == "note"
    assert found.needs


def test_a_clipped_share_of_zero_is_not_enough(findings):
    (found,) = findings("ratio-constant", {"clip/fraction": np.zeros(20)}, **FOUR)
    assert found.level == "note"


def test_no_gradient_keeps_the_ratio_at_one(findings):
    assert findings("ratio-constant", {"kl/old": np.zeros(10), "gradient/norm": np.zeros(10)}, **FOUR) == []
    assert findings("ratio-constant", {"kl/old": np.zeros(10), "learning_rate": np.zeros(10)}, **FOUR) == []


def test_a_ratio_that_moves_is_fine(findings, noise):
    assert findings("ratio-constant", {"kl/old": np.abs(0.001 * noise(size=10))}, **FOUR) == []


def test_one_update_is_not_its_matter(findings):
    given = {"data.train_batch_size": 64, "actor_rollout_ref.actor.ppo_mini_batch_size": 64}
    assert findings("ratio-constant", {"kl/old": np.zeros(10)}, **given) == []
