from __future__ import annotations

from testbed.objectives.grpo import GRPO


def test_value_by_hand(tokens, check):
    # Token losses as PPO: -(1.1 + 1.2 + 0.5)·A for A = 1 and +0.8, 3 for A = -1 (interval [0.8, 1.2]).
    # Means per response -2.8/3 and 3.8/2, then their mean: (-2.8/3 + 1.9)/2.
    batch = tokens([[1.1, 1.5, 0.5], [0.5, 3.0, None]], [1.0, -1.0])
    check(
        "grpo",
        batch,
        token_loss=[[-1.1, -1.2, -0.5], [0.8, 3.0, 0.0]],
        gradient=[[-1.1, 0.0, -0.5], [0.0, 3.0, 0.0]],
        loss=(-2.8 / 3 + 1.9) / 2,
    )


def mutate(monkeypatch):
    """The mean runs over tokens instead of responses."""
    monkeypatch.setattr(
        GRPO, "_reduce", lambda self, token_loss, batch: token_loss.sum((-2, -1)) / batch.total_tokens()
    )
