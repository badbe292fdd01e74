from __future__ import annotations

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # Values of PPO on [0.8, 1.2]; a held token keeps the weight of its bound: 1.2 for A > 0, 0.8 for A < 0.
    batch = tokens([[0.5, 1.1, 1.5], [0.5, 1.1, 1.5]], [2.0, -2.0])
    check(
        "gppo",
        batch,
        token_loss=[[-1.0, -2.2, -2.4], [1.6, 2.2, 3.0]],
        gradient=[[-1.0, -2.2, -2.4], [1.6, 2.2, 3.0]],
        loss=1.2 / 6,
    )


def mutate(monkeypatch):
    """The gradient at the bound is lost."""
    monkeypatch.setattr("testbed.objectives._base.straight_through", lambda log_ratio: torch.ones_like(log_ratio))


def test_dual_clip_caps_negative_tokens(tokens, check):
    # c = 3: for A = -1 the loss stops at 3; positive tokens are not concerned.
    batch = tokens([[2.5, 4.0], [2.5, 4.0]], [-1.0, 1.0])
    check(
        "gppo(dual_clip=3.0)",
        batch,
        token_loss=[[2.5, 3.0], [-1.2, -1.2]],
        gradient=[[2.5, 0.0], [-1.2, -1.2]],
    )


def test_values_equal_those_of_ppo(tokens):
    batch = tokens([[0.1, 0.79, 0.81, 1.0, 1.19, 1.21, 9.0]] * 2, [1.0, -1.0])
    ours = make_objective("gppo")(batch)
    torch.testing.assert_close(ours.token_loss, make_objective("ppo")(batch).token_loss, rtol=1e-12, atol=0)
    # Nothing is clipped in the sense of a lost gradient; 4 of 7 ratios are outside the interval.
    assert ours.metrics["clip/fraction"].item() == 0
    assert ours.metrics["band/outside_fraction"].item() == pytest.approx(4 / 7, rel=1e-12)


@pytest.mark.parametrize("offset", [-0.1, 1.1])
def test_rejects_a_lower_offset_outside_its_range(offset):
    with pytest.raises(ConfigError, match=rf"gppo: clip_low is {offset}; expected a value in \[0, 1\]"):
        make_objective("gppo", clip_low=offset)
