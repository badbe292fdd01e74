from __future__ import annotations

import math

import pytest

HALF = math.log(0.5)


def test_value_by_hand(tokens, check):
    # W = 2 and ½. A = 1: weight 1 both times. A = -1: min(2, 1) = 1 and ½. log p = log(r/4).
    # r = (4, ½): log p = 0, 3 log ½. r = (2, ¼): log ½, 4 log ½. Sums per response: ∓3 and ∓5 log ½, mean over four.
    batch = tokens([[4.0, 0.5], [2.0, 0.25], [4.0, 0.5], [2.0, 0.25]], [1.0, 1.0, -1.0, -1.0])
    check(
        "topr",
        batch,
        token_loss=[[0.0, -3 * HALF], [-HALF, -4 * HALF], [0.0, 3 * HALF], [0.5 * HALF, 2 * HALF]],
        gradient=[[-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [0.5, 0.5]],
        loss=(-3 - 5 + 3 + 2.5) * HALF / 4,
    )


def test_a_far_token_is_not_clamped_before_the_sum(far):
    # A = -1: W = exp(-30 + 29) = 1/e.
    (_, gradient) = far("topr", [-30.0, 29.0], advantage=-1.0)
    assert gradient == pytest.approx([math.exp(-1)] * 2, rel=1e-12)


def mutate(monkeypatch):
    """Good responses are tapered and bad ones are not."""
    from testbed.objectives.topr import TOPR, score_loss, torch

    def swapped(self, batch):
        tapered = batch.unclamped_log_ratio.detach().sum(-1, keepdim=True).clamp(max=0).exp()
        return score_loss(torch.where(batch.advantages < 0, torch.ones_like(tapered), tapered), batch)

    monkeypatch.setattr(TOPR, "token_loss", swapped)
