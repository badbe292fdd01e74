from __future__ import annotations

import math

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective

LOG3 = math.log(3.0)


def test_value_by_hand(tokens, check):
    # σ(ln 3) = 3/4 and σ(-ln 3) = 1/4; in both cases sech² = 4·(3/4)·(1/4) = 3/4.
    # τ_pos = 2: τ(r - 1) = ±ln 3 at r = 1 ± ln 3/2; values (4/2)·¾ = 1.5 and 0.5, and (4/2)·½ = 1 at r = 1.
    # τ_neg = 4: at r = 1 ± ln 3/4; values 0.75, 0.25, 0.5. F = ¾ r, and 1 at r = 1.
    up2, down2, up4, down4 = 1 + LOG3 / 2, 1 - LOG3 / 2, 1 + LOG3 / 4, 1 - LOG3 / 4
    check(
        "sapo(tau_pos=2.0,tau_neg=4.0)",
        tokens([[down2, 1.0, up2], [down4, 1.0, up4]], [1.0, -2.0]),
        token_loss=[[-0.5, -1.0, -1.5], [0.5, 1.0, 1.5]],
        gradient=[[-0.75 * down2, -1.0, -0.75 * up2], [1.5 * down4, 2.0, 1.5 * up4]],
        loss=0.0,
    )


def test_value_of_the_defaults(tokens, check):
    # τ = 1 for A > 0: (4/1)·¾ = 3 at r = 1 + ln 3. τ = 1.05 for A < 0: (4/1.05)·¾ at r = 1 + ln 3/1.05.
    up_pos, up_neg = 1 + LOG3, 1 + LOG3 / 1.05
    check(
        "sapo",
        tokens([[up_pos, None], [up_neg, up_neg]], [1.0, -1.0]),
        token_loss=[[-3.0, 0.0], [3 / 1.05, 3 / 1.05]],
        gradient=[[-0.75 * up_pos, 0.0], [0.75 * up_neg, 0.75 * up_neg]],
        # Means per response, then over responses.
        loss=(-3.0 + 3 / 1.05) / 2,
    )


def mutate(monkeypatch):
    """The two temperatures trade places."""
    right = make_objective("sapo").__class__.token_loss

    def swapped(self, batch):
        return right(type(self)(tau_pos=self.tau_neg, tau_neg=self.tau_pos), batch)

    monkeypatch.setattr("testbed.objectives.sapo.SAPO.token_loss", swapped)


def test_on_policy_value_is_two_over_tau(tokens):
    batch = tokens([[1.0]], [3.0])
    assert make_objective("sapo", tau_pos=0.5)(batch).loss.item() == pytest.approx(-2 * 3 / 0.5, rel=1e-12)


def test_peak_of_the_gradient_weight(tokens):
    # F(r) = r·sech²((r-1)/2) peaks where 1 = r·tanh((r-1)/2), near r = 2.06, at 1.5747.
    ratios = torch.linspace(1.9, 2.2, 30001, dtype=torch.float64).tolist()
    batch = tokens([ratios], [1.0])
    (gradient,) = torch.autograd.grad(make_objective("sapo").token_loss(batch).sum(), batch.log_probs)
    peak = int((-gradient).argmax())
    assert ratios[peak] * math.tanh((ratios[peak] - 1) / 2) == pytest.approx(1.0, abs=1e-4)
    assert -gradient[0, peak].item() == pytest.approx(1.5747, abs=5e-5)


@pytest.mark.parametrize("name", ["tau_pos", "tau_neg"])
def test_rejects_a_temperature_that_is_not_positive(name):
    with pytest.raises(ConfigError, match=rf"sapo: {name} is 0\.0; expected a value in \(0, inf\)"):
        make_objective("sapo", **{name: 0.0})
