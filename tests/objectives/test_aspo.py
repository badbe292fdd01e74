from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

HALF = math.log(0.5)


def test_value_by_hand(tokens, check):
    # A = 1: weight 1/r, at most 3, none above r = 1.2: r = ½ → 2, ⅛ → 3 (soft cap), 1.1 → 1/1.1, 2 → 0.
    # A = -1: weight r, at most 3, none below r = 0.8: ½ → 0, 4 → 3 (soft cap), 1.1 → 1.1, 2 → 2. log p = log(r/4).
    small = math.log(1.1 / 4)
    check(
        "aspo",
        tokens([[0.5, 0.125, 1.1, 2.0], [0.5, 4.0, 1.1, 2.0]], [1.0, -1.0]),
        token_loss=[[-2 * 3 * HALF, -3 * 5 * HALF, -small / 1.1, 0.0], [0.0, 0.0, 1.1 * small, 2 * HALF]],
        gradient=[[-2.0, -3.0, -1 / 1.1, 0.0], [0.0, 3.0, 1.1, 2.0]],
        loss=(-19 * HALF + (1.1 - 1 / 1.1) * small) / 8,
    )


def mutate(monkeypatch):
    """Positive tokens keep PPO's weight r."""
    from testbed.objectives.aspo import ASPO, score_loss

    def upright(self, batch):
        clipped = self.clip_interval(batch).clipped(batch)
        return score_loss(batch.ratio.clamp(max=self.weight_max).masked_fill(clipped, 0), batch)

    monkeypatch.setattr(ASPO, "token_loss", upright)


def test_rejects_a_cap_below_one():
    with pytest.raises(ConfigError, match=r"aspo: weight_max is 0\.5; expected a value in \[1, inf\)"):
        make_objective("aspo", weight_max=0.5)
