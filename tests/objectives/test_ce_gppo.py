from __future__ import annotations

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # β₁ = ¼ below with A < 0: ¼·0.8·2 = 0.4; β₂ = ½ above with A > 0: -½·1.2·2 = -1.2; -rA elsewhere. Weight = value.
    batch = tokens([[0.5, 1.1, 1.5], [0.5, 1.1, 1.5]], [2.0, -2.0])
    check(
        "ce_gppo(beta1=0.25,beta2=0.5)",
        batch,
        token_loss=[[-1.0, -2.2, -1.2], [0.4, 2.2, 3.0]],
        gradient=[[-1.0, -2.2, -1.2], [0.4, 2.2, 3.0]],
        loss=(-4.4 + 5.6) / 6,
    )


def test_value_of_the_defaults(tokens, check):
    # β₁ = 0.75, β₂ = 1: 0.75·0.8·2 = 1.2 below, 1.2·2 above.
    batch = tokens([[0.5, 1.5], [0.5, 1.5]], [2.0, -2.0])
    check("ce_gppo", batch, token_loss=[[-1.0, -2.4], [1.2, 3.0]], gradient=[[-1.0, -2.4], [1.2, 3.0]])


def mutate(monkeypatch):
    """β₁ and β₂ trade places, as in the paper's section 3.2."""
    from testbed.objectives import gradient_preserving_surrogate as right

    def swapped(batch, low, high, *, beta_low, beta_high, ceiling):
        return right(batch, low, high, beta_low=beta_high, beta_high=beta_low, ceiling=ceiling)

    monkeypatch.setattr("testbed.objectives.gppo.gradient_preserving_surrogate", swapped)


def test_special_cases(tokens):
    batch = tokens([[0.5, 1.1, 1.5], [0.5, 1.1, 1.5]], [2.0, -2.0])

    def gradient(name):
        return torch.autograd.grad(make_objective(name).token_loss(batch).sum(), batch.log_probs)[0]

    assert torch.equal(gradient("ce_gppo(beta1=1,beta2=1)"), gradient("gppo"))
    assert torch.equal(gradient("ce_gppo(beta1=0,beta2=0)"), gradient("ppo"))
    # "β₁ = β₂ = 0 is PPO" holds for gradients only: the held tokens' value is 0 here and ±A·bound there.
    assert not torch.equal(
        make_objective("ce_gppo(beta1=0,beta2=0)")(batch).token_loss, make_objective("ppo")(batch).token_loss
    )


def test_released_preset_dual_clips_at_ten(tokens, check):
    batch = tokens([[12.0, 12.0]], [[-1.0, 1.0]])
    check('ce_gppo(preset="released")', batch, token_loss=[[10.0, -1.2]], gradient=[[0.0, -1.2]])
    assert make_objective("ce_gppo", preset="released").label() == "ce_gppo(dual_clip=10.0)"


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_rejects_a_negative_coefficient(name):
    with pytest.raises(ConfigError, match=rf"ce_gppo: {name} is -0.5; expected a value in \[0, inf\)"):
        make_objective("ce_gppo", **{name: -0.5})
