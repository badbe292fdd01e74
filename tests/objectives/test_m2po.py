from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective

E = math.e


def test_value_by_hand(tokens, check):
    # z = 1, 2 and -3 harmful (A = 1 above, A = -1 below), -1 harmless. v = 1, 4, 9; B·n = 9 at B = 3.
    # Σ min(v, 1) = 3, Σ min(v, 4) = 9, not below 9: τ² = 1. Bounds e^-1 and e, wider than the floors.
    # The token that set τ, z = 1, is inside.
    check(
        "m2po(budget=3.0)",
        tokens([[E, E**2], [E**-3, E]], [1.0, -1.0], old=E**-4),
        token_loss=[[-E, -E], [E**-1, E]],
        gradient=[[-E, 0.0], [0.0, E]],
        loss=(E**-1 - E) / 4,
    )


def test_value_within_the_budget_is_not_clipped(tokens, check):
    # Σ v = 14 ≤ B·n = 15.
    check(
        "m2po(budget=5.0)",
        tokens([[E, E**2], [E**-3, E]], [1.0, -1.0], old=E**-4),
        gradient=[[-E, -(E**2)], [E**-3, E]],
    )


def test_value_of_the_sampler_form(tokens, check):
    # (log μ - log q)² = 9, 4, 1, 0 | mean 3.5; without 9: 5/3; without 4: ½ < B = 1. Two are dropped, two are PPO.
    check(
        'm2po(preset="areal",budget=1.0)',
        tokens(
            [[1.1, 1.1, 1.1, 1.5]],
            [1.0],
            old=E**-4,
            sampler_log_probs=[[-1.0, -6.0, -3.0, -4.0]],
        ),
        token_loss=[[0.0, 0.0, -1.1, -1.2]],
        gradient=[[0.0, 0.0, -1.1, 0.0]],
    )


def mutate(monkeypatch):
    """Harmless tokens count as harmful."""
    from testbed.objectives.m2po import M2PO

    honest = M2PO.tau

    def sign_blind(self, batch):
        return honest(self, dataclasses.replace(batch, advantages=batch.log_ratio.detach().sign()))

    monkeypatch.setattr(M2PO, "tau", sign_blind)


def test_no_token_fits_a_budget_of_nothing(tokens):
    # τ = 0: the floors 0.7 and 1.5 are what remains.
    interval = make_objective("m2po", budget=0.0).clip_interval(tokens([[E, E**-1]], [1.0]))
    assert interval.low.item() == pytest.approx(0.7, rel=1e-12)
    assert interval.high.item() == pytest.approx(1.5, rel=1e-12)


def test_each_replica_has_its_own_bounds():
    log_ratio = torch.tensor([[[0.1, 0.9]], [[0.1, 0.1]]], dtype=torch.float64)
    batch = TokenBatch(
        log_probs=log_ratio - 3,
        old_log_probs=torch.full_like(log_ratio, -3.0),
        advantages=torch.ones(2, 1).double(),
        mask=log_ratio > 0,
    )
    # v = 0.01, 0.81 over B·n = 0.08: τ = 0.1 | v = 0.01 twice: no clip.
    tau = make_objective("m2po").tau(batch)
    assert tau.flatten().tolist() == pytest.approx([0.1, math.inf], rel=1e-12)


def test_the_sampler_form_needs_the_sampler(tokens):
    with pytest.raises(BatchError, match="sampler_log_probs missing from the batch"):
        make_objective("m2po", preset="areal")(tokens([[1.0]], [1.0]))


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"budget": -0.1}, r"m2po: budget is -0\.1; expected a value in \[0, inf"),
        ({"second_moment": "all"}, r"m2po: second_moment is 'all'; expected 'harmful' or 'sampler'"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("m2po", **hyper_parameters)
