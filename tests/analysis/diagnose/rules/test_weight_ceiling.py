from __future__ import annotations

import numpy as np


def test_the_other_losses_epsilon_is_a_ceiling_below_one(findings):
    (found,) = findings("weight-ceiling", {}, engine="trl", loss_type="cispo", epsilon=0.2)
    assert found.level == "problem"
    assert "multiplied by 0.2" in found.statement


def test_the_default_is_no_better(findings):
    assert findings("weight-ceiling", {}, engine="trl", loss_type="cispo")


def test_a_ceiling_for_outliers_is_fine(findings):
    columns = {"weight/capped_fraction": np.full(20, 0.001)}
    assert findings("weight-ceiling", columns, engine="trl", loss_type="cispo", epsilon_high=5.0) == []


def test_the_share_alone_shows_it(findings):
    (found,) = findings("weight-ceiling", {"weight/capped_fraction": np.full(20, 0.67)}, engine="trl")
    assert found.needs


def test_an_offset_is_no_ceiling(findings):
    given = {"actor_rollout_ref.actor.policy_loss.loss_mode": "cispo", "actor_rollout_ref.actor.clip_ratio_high": 0.2}
    assert findings("weight-ceiling", {}, **given) == []
