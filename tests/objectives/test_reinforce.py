from __future__ import annotations

import torch

from testbed.objectives.reinforce import Reinforce


def test_value_by_hand(tokens, check):
    # ℓ = -A log p with p = 1/4 · ratio: log p = log(1/4), log(1/2) and log 2; dℓ/dlog p = -A whatever the ratio.
    batch = tokens([[1.0, 2.0, 8.0], [1.0, 2.0, 8.0]], [2.0, -3.0])
    log_half = -0.6931471805599453
    check(
        "reinforce",
        batch,
        token_loss=[[-4 * log_half, -2 * log_half, 2 * log_half], [6 * log_half, 3 * log_half, -3 * log_half]],
        gradient=[[-2.0, -2.0, -2.0], [3.0, 3.0, 3.0]],
        # token mean: (-4 - 2 + 2 + 6 + 3 - 3)/6 = 1/3
        loss=log_half / 3,
    )


def mutate(monkeypatch):
    """The ratio takes the place of log p."""
    monkeypatch.setattr(Reinforce, "token_loss", lambda self, batch: -batch.advantages * batch.ratio)


def test_old_policy_does_not_matter(tokens):
    batch = tokens([[1.5, 0.2]], [1.0])
    other = tokens([[3.0, 0.4]], [1.0], old=0.125)
    torch.testing.assert_close(Reinforce()(batch).loss, Reinforce()(other).loss, rtol=1e-12, atol=0)
