from __future__ import annotations

ACTOR = "actor_rollout_ref.actor"
COVARIANCE = {f"{ACTOR}.policy_loss.loss_mode": "clip_cov", f"{ACTOR}.ppo_mini_batch_size": 64}


def test_a_micro_batch_smaller_than_the_mini_batch(findings):
    (found,) = findings("batch-scope", {}, **COVARIANCE, **{f"{ACTOR}.ppo_micro_batch_size_per_gpu": 4})
    assert found.level == "warning"


def test_micro_batches_cut_by_tokens(findings):
    (found,) = findings("batch-scope", {}, **COVARIANCE, **{f"{ACTOR}.use_dynamic_bsz": True})
    assert found.level == "warning"


def test_the_whole_mini_batch_at_once(findings):
    assert findings("batch-scope", {}, **COVARIANCE, **{f"{ACTOR}.ppo_micro_batch_size_per_gpu": 64}) == []


def test_what_is_not_known_is_asked_for(findings):
    (found,) = findings("batch-scope", {}, **COVARIANCE)
    assert found.level == "note"
    assert found.needs


def test_another_loss_selects_nothing(findings):
    given = {f"{ACTOR}.policy_loss.loss_mode": "vanilla", f"{ACTOR}.ppo_micro_batch_size_per_gpu": 4}
    assert findings("batch-scope", {}, **given) == []
