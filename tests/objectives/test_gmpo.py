from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # δ = log 2 on both sides. A = 1: ratios 8 and ½ become 2 and ½, g = 1; the first token is clipped.
    # A = -2: 8 and ⅛ become 8 and ½, g = 2; the second is clipped. Each unclipped token has weight n·(1/n)·g.
    delta = math.log(2)
    check(
        f"gmpo(clip_low={delta!r},clip_high={delta!r})",
        tokens([[8.0, 0.5, None], [8.0, 0.125, None]], [1.0, -2.0]),
        token_loss=[[-1.0, -1.0, 0.0], [4.0, 4.0, 0.0]],
        gradient=[[0.0, -1.0, 0.0], [4.0, 0.0, 0.0]],
        loss=(-1.0 + 4.0) / 2,
    )


def test_value_at_the_default_bounds(tokens, check):
    # δ = 0.4: z = 0.5 counts 0.4, z = -0.5 is the wrong way for A = 1 and counts in full: g = exp(-0.05).
    g = math.exp(-0.05)
    check(
        "gmpo",
        tokens([[math.exp(0.5), math.exp(-0.5)]], [1.0]),
        token_loss=[[-g, -g]],
        gradient=[[0.0, -g]],
        loss=-g,
    )


def test_a_far_token_is_not_clamped_before_the_mean(far):
    # A = 1: z = -60 is the wrong way and counts in full, z = 10 counts 0.4: g = exp(-59.6/4), weight g/n each, and none
    # for the clipped token.
    g = math.exp(-59.6 / 4)
    (loss, gradient) = far("gmpo", [-60.0, 10.0, 0.0, 0.0])
    assert loss == pytest.approx(-g, rel=1e-12)
    assert gradient == pytest.approx([-g / 4, 0.0, -g / 4, -g / 4], rel=1e-12)


def test_a_response_beyond_the_clamp_has_no_gradient(far):
    (loss, gradient) = far("gmpo", [-60.0, -10.0])
    assert loss == pytest.approx(-math.exp(-20), rel=1e-12)
    assert gradient == [0.0, 0.0]


def mutate(monkeypatch):
    """The clip follows the opposite sign of A."""
    from testbed.objectives.gmpo import GMPO, clamp, torch

    def swapped(self, batch):
        up = clamp(batch.unclamped_log_ratio, -float("inf"), self.clip_high)
        down = clamp(batch.unclamped_log_ratio, -self.clip_low, float("inf"))
        return -batch.sequence_mean(torch.where(batch.advantages > 0, down, up)).exp() * batch.advantages

    monkeypatch.setattr(GMPO, "token_loss", swapped)


def test_interval_is_that_of_the_ratio(tokens):
    metrics = make_objective("gmpo")(tokens([[math.exp(0.41), math.exp(0.39), math.exp(-0.41)]], [1.0])).metrics
    assert metrics["clip/high_fraction"].item() == pytest.approx(1 / 3, rel=1e-12)
    assert metrics["band/outside_fraction"].item() == pytest.approx(2 / 3, rel=1e-12)


@pytest.mark.parametrize("name", ["clip_low", "clip_high"])
def test_rejects_a_negative_offset(name):
    with pytest.raises(ConfigError, match=rf"gmpo: {name} is -0\.4; expected a value in \[0, inf\)"):
        make_objective("gmpo", **{name: -0.4})
