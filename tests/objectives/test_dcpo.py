from __future__ import annotations

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.objectives.dcpo import DCPO


def test_value_by_hand(tokens, check):
    # q = 0.64: low = ½ + ½√(1 - 0.64/0.64) = 0.5, high = ½ + ½√(1 + 0.8/0.64) = ½ + ½·1.5 = 1.25.
    # q = 0.1:  low = 0.5 (the root's argument is negative), high = ½ + ½√9 = 2.
    # q = 1:    low = ½ + ½√0.36 = 0.8.
    # A = 1: 1.2 inside, 1.3 held at 1.25; 1.9 inside, 2.5 held at 2; 0.4 is the wrong way and keeps its weight.
    # A = -1: 0.4 held at 0.5; 0.7 held at 0.8; 1.3 keeps its weight; 12 is stopped at r_max = 10.
    old = [[0.64, 0.64, 0.1, 0.1, 0.64], [0.64, 1.0, 0.64, 0.1, 0.1]]
    check(
        "dcpo",
        tokens([[1.2, 1.3, 1.9, 2.5, 0.4], [0.4, 0.7, 1.3, 12.0, None]], [1.0, -1.0], old=old),
        token_loss=[[-1.2, -1.25, -1.9, -2.0, -0.4], [0.5, 0.8, 1.3, 10.0, 0.0]],
        gradient=[[-1.2, 0.0, -1.9, 0.0, -0.4], [0.0, 0.0, 1.3, 0.0, 0.0]],
        # Means per response, added and not averaged over responses.
        loss=-6.75 / 5 + 12.6 / 4,
    )


def test_value_of_the_cap_on_the_upper_bound(tokens, check):
    # q = 0.0005: ½ + ½√(1 + 0.8/0.0005) = 20.5, capped at 10, or at r_max = 4.
    check("dcpo", tokens([[9.0, 11.0]], [1.0], old=0.0005), token_loss=[[-9.0, -10.0]], gradient=[[-9.0, 0.0]])
    check(
        "dcpo(ratio_max=4.0)",
        tokens([[3.0, 11.0], [3.0, 11.0]], [1.0, -1.0], old=0.0005),
        token_loss=[[-3.0, -4.0], [3.0, 4.0]],
        gradient=[[-3.0, 0.0], [3.0, 0.0]],
    )


def mutate(monkeypatch):
    """The lower bound has the sign of PPO's: it falls without limit as q falls."""

    def bounds(self, old_probs):
        low = (1 - self.clip_low / old_probs).clamp(min=0)
        return low, (0.5 + 0.5 * (1 + 4 * self.clip_high / old_probs).sqrt()).clamp(max=self.ratio_max)

    monkeypatch.setattr(DCPO, "bounds", bounds)


def test_bounds_solve_the_inequality_they_come_from():
    # |r - 1|·p = ε with p = r q at both bounds, wherever neither convention (½, r_max) has taken over.
    q = torch.linspace(0.65, 1.0, 50, dtype=torch.float64)
    low, high = DCPO().bounds(q)
    torch.testing.assert_close(q * low * (1 - low), torch.full_like(q, 0.16), rtol=1e-12, atol=0)
    torch.testing.assert_close(q * high * (high - 1), torch.full_like(q, 0.2), rtol=1e-12, atol=0)


def test_likely_tokens_cannot_reach_their_upper_bound():
    # high ≥ 1/q, so that p = r q would exceed 1 first, exactly for q ≥ 1/1.2.
    q = torch.tensor([0.83, 0.8333, 0.8334, 0.9, 0.999], dtype=torch.float64)
    assert (DCPO().bounds(q)[1] >= 1 / q).tolist() == [False, False, True, True, True]


def test_cap_binds_below_its_threshold():
    # ½ + ½√(1 + 0.8/q) = 10 at q = 0.8/360.
    threshold = 0.8 / 360
    q = torch.tensor([0.999 * threshold, 1.001 * threshold], dtype=torch.float64)
    assert (DCPO().bounds(q)[1] == 10).tolist() == [True, False]


def test_takes_smoothed_advantages():
    assert make_objective("dcpo").advantage == "smooth_standardised"


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"clip_low": -0.1}, r"dcpo: clip_low is -0\.1; expected a value in \[0, inf\)"),
        ({"clip_high": -1}, r"dcpo: clip_high is -1; expected a value in \[0, inf\)"),
        ({"ratio_max": 1.0}, r"dcpo: ratio_max is 1\.0; expected a value in \(1, inf\)"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("dcpo", **hyper_parameters)
