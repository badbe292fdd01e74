from __future__ import annotations

import torch

from testbed.objectives import make_objective
from testbed.objectives.dapo import DAPO


def test_value_by_hand(tokens, check):
    # Interval [0.8, 1.28]: r = 1.25 is inside, 1.5 is held at 1.28. One mean over all five tokens.
    batch = tokens([[1.25, 1.5, 0.5], [0.5, 3.0, None]], [1.0, -1.0])
    check(
        "dapo",
        batch,
        token_loss=[[-1.25, -1.28, -0.5], [0.8, 3.0, 0.0]],
        gradient=[[-1.25, 0.0, -0.5], [0.0, 3.0, 0.0]],
        loss=(-3.03 + 3.8) / 5,
    )


def mutate(monkeypatch):
    """The upper bound is PPO's."""
    monkeypatch.setattr(DAPO, "clip_interval", lambda self, batch: make_objective("ppo").clip_interval(batch))


def test_equal_clips_and_lengths_make_it_grpo(tokens):
    batch = tokens([[1.25, 1.5], [0.5, 3.0]], [1.0, -1.0])
    dapo = make_objective("dapo", clip_high=0.2)(batch)
    torch.testing.assert_close(dapo.loss, make_objective("grpo")(batch).loss, rtol=1e-12, atol=0)
