from __future__ import annotations

from testbed.objectives.luspo import LUSPO


def test_value_by_hand(tokens, check):
    # s = 1 (n = 2) and s = (1/8)^⅓ = ½ (n = 3), interval [0.4, 1.5]: losses 2·(-1) and 3·(½·2), mean over 2.
    # Gradient per token of Σ ℓ is s·A, without 1/n.
    batch = tokens([[2.0, 0.5, None], [0.125, 1.0, 1.0]], [1.0, -2.0])
    check(
        "luspo(clip_low=0.6,clip_high=0.5)",
        batch,
        token_loss=[[-1.0, -1.0, 0.0], [1.0, 1.0, 1.0]],
        gradient=[[-1.0, -1.0, 0.0], [1.0, 1.0, 1.0]],
        loss=(-2.0 + 3.0) / 2,
    )


def test_value_at_the_default_bounds(tokens, check):
    # 1 - 0.002 and 1 + 0.0025: for A = 1, s = 1.0026 is held and s = 1.0024 is not.
    batch = tokens([[1.0026], [1.0024]], [1.0, 1.0])
    check("luspo", batch, token_loss=[[-1.0025], [-1.0024]], gradient=[[0.0], [-1.0024]])


def mutate(monkeypatch):
    """Each response is divided by its length, as in GSPO."""
    monkeypatch.setattr(LUSPO, "_reduce", lambda self, token_loss, batch: batch.sequence_mean(token_loss).mean())
