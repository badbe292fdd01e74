from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

HALF = math.log(0.5)


def test_value_by_hand(tokens, check):
    # W = 4·½ = 2 for both responses. A = 1: φ = 2²·exp(3(1 - 2)) = 4e⁻³. A = -1: φ = 2³·exp(2(1 - 2)) = 8e⁻².
    # log p = log(r/4): 0 and 3 log ½. ℓ = -φ A log p.
    positive, negative = 4 * math.exp(-3), 8 * math.exp(-2)
    check(
        "vespo",
        tokens([[4.0, 0.5, None], [4.0, 0.5, None]], [1.0, -1.0]),
        token_loss=[[0.0, -3 * HALF * positive, 0.0], [0.0, 3 * HALF * negative, 0.0]],
        gradient=[[-positive, -positive, 0.0], [negative, negative, 0.0]],
        loss=3 * HALF * (negative - positive) / 4,
    )


def test_value_on_policy_is_reinforce(tokens, check):
    check("vespo", tokens([[1.0, 1.0]], [3.0]), gradient=[[-3.0, -3.0]])


def test_value_of_other_powers(tokens, check):
    # c₁ = 1, c₂ = 0 leaves W itself: plain sequence importance weights.
    check("vespo(pos=(1.0,0.0))", tokens([[4.0, 2.0]], [1.0]), gradient=[[-8.0, -8.0]])


def test_a_far_token_is_not_clamped_before_the_sum(far):
    # log W = -30 + 28 + 1 = -1 and φ = W²·exp(3(1 - W)); clamped token by token log W would be +1.
    (_, gradient) = far("vespo(reduction=seq_mean_token_sum)", [-30.0, 28.0, 1.0])
    assert gradient == pytest.approx([-math.exp(-2 + 3 * (1 - math.exp(-1)))] * 3, rel=1e-12)


def mutate(monkeypatch):
    """The two pairs of powers trade places."""
    from testbed.objectives.vespo import VESPO

    right = VESPO.token_loss
    monkeypatch.setattr(VESPO, "token_loss", lambda self, batch: right(VESPO(pos=self.neg, neg=self.pos), batch))


@pytest.mark.parametrize("pair", [(-1.0, 2.0), (1.0, -2.0), (1.0,), (float("nan"), 1.0), (1.0, float("nan")), 3.0])
def test_rejects_powers_outside_their_range(pair):
    with pytest.raises(ConfigError, match=r"vespo: neg is .*; expected \(c1, c2\), both in \[0, inf\)"):
        make_objective("vespo", neg=pair)
