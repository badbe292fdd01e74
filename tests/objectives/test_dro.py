from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective

E = math.e


def test_value_by_hand(tokens, check):
    # z = 1, -2 | 1 and log q = -3, so log p = -2, -5 | -2. ℓ = -A log p + z² at β = 2; gradient -A + 2z.
    check(
        "dro(beta=2.0)",
        tokens([[E, E**-2], [E, None]], [1.0, -3.0], old=E**-3),
        token_loss=[[3.0, 9.0], [-5.0, 0.0]],
        gradient=[[1.0, -5.0], [5.0, 0.0]],
        loss=7 / 3,
    )


def test_value_at_the_level_of_the_sequence(tokens, check):
    # Σz = -1 | 1. The price (β/2)(Σz)² = 1 is shared by two tokens and by one; gradient -A + 2Σz at every token.
    check(
        'dro(beta=2.0,level="sequence")',
        tokens([[E, E**-2], [E, None]], [1.0, -3.0], old=E**-3),
        token_loss=[[2.5, 5.5], [-5.0, 0.0]],
        gradient=[[-3.0, -3.0], [5.0, 0.0]],
        loss=(8.0 - 5.0) / 2,
    )


def push(tokens, objective):
    return tokens.advantages - objective.beta * np.log(tokens.ratio)


def mutate(monkeypatch):
    """The price without its ½."""
    from testbed.objectives.dro import DRO

    honest = DRO.token_loss
    monkeypatch.setattr(
        DRO, "token_loss", lambda self, batch: 2 * honest(self, batch) + batch.advantages * batch.log_probs
    )


def test_the_push_ends_at_a_over_beta(tokens):
    # z = A/β = ½ for A = 1 and β = 2.
    batch = tokens([[math.exp(0.5)]], [1.0])
    make_objective("dro", beta=2.0)(batch).loss.backward()
    assert batch.log_probs.grad.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_label_makes_the_same_object(level):
    objective = make_objective("dro", level=level)
    assert make_objective(objective.label()) == objective
    assert objective.reduction == {"token": "token_mean", "sequence": "seq_mean_token_sum"}[level]


def test_one_price_per_replica(tokens):
    batch = tokens([[E, E]], [0.0])
    both = make_objective("dro", beta=torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None])(batch).loss
    assert both.tolist() == pytest.approx([0.5, 1.0], rel=1e-12)


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"beta": -0.1}, r"dro: beta is -0\.1; expected a value in \[0, inf\)"),
        ({"level": "batch"}, r"dro: level is 'batch'; expected 'token' or 'sequence'"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("dro", **hyper_parameters)
