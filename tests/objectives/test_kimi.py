from __future__ import annotations

import math

import numpy as np
import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

E = math.e


def test_value_by_hand(tokens, check):
    # As `dro` at the level of the sequence: Σz = -1 | 1, log p = -2, -5 | -2; response losses -A Σ log p + (Σz)².
    check(
        "kimi(tau=2.0)",
        tokens([[E, E**-2], [E, None]], [1.0, -3.0], old=E**-3),
        token_loss=[[2.5, 5.5], [-5.0, 0.0]],
        gradient=[[-3.0, -3.0], [5.0, 0.0]],
        loss=(8.0 - 5.0) / 2,
    )


def push(tokens, objective):
    return tokens.advantages - objective.tau * np.log(tokens.product_ratio)


def mutate(monkeypatch):
    """Each token pays for itself: the engines' form, without the cross terms."""
    from testbed.objectives.dro import DRO
    from testbed.objectives.kimi import Kimi

    monkeypatch.setattr(Kimi, "token_loss", lambda self, batch: DRO(beta=self.tau).token_loss(batch))


def test_differs_from_the_token_form_by_the_cross_terms(tokens):
    # Two tokens of z = 1 and A = 0: (τ/2)·2² = 2 against (τ/2)(1 + 1) = 1 at τ = 1.
    batch = tokens([[E, E]], [0.0])
    assert make_objective("kimi", tau=1.0)(batch).loss.item() == pytest.approx(2.0, rel=1e-12)
    token_form = make_objective("dro", beta=1.0, reduction="seq_mean_token_sum")
    assert token_form(batch).loss.item() == pytest.approx(1.0, rel=1e-12)


def test_rejects():
    with pytest.raises(ConfigError, match=r"kimi: tau is -1\.0; expected a value in \[0, inf\)"):
        make_objective("kimi", tau=-1.0)
