from __future__ import annotations

import pytest

ACTOR = "actor_rollout_ref.actor"


def given(loss, low, high):
    return {f"{ACTOR}.policy_loss.loss_mode": loss, f"{ACTOR}.clip_ratio_low": low, f"{ACTOR}.clip_ratio_high": high}


@pytest.mark.parametrize(
    ("loss", "low", "high", "title"),
    [
        ("gspo", 0.2, 0.28, "GSPO with PPO's bounds"),
        ("gspo", 3e-4, 4e-4, None),
        ("vanilla", 3e-4, 4e-4, "PPO with GSPO's bounds"),
        ("vanilla", 0.2, 0.28, None),
        ("cispo", 0.2, 5.0, None),
    ],
)
def test_bounds_and_ratio(findings, loss, low, high, title):
    found = findings("clip-range", {}, **given(loss, low, high))
    assert [(item.title, item.level) for item in found] == ([] if title is None else [(title, "problem")])


def test_the_default_bounds_are_ppos(findings):
    (found,) = findings("clip-range", {}, engine="trl", importance_sampling_level="sequence", num_generations=8)
    assert "by default" in found.statement


def test_without_a_configuration_it_is_silent(findings):
    assert findings("clip-range", {"clip/fraction": [0.4] * 20}) == []
