from __future__ import annotations

import math

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective

HALF = math.log(0.5)


def test_value_by_hand(tokens, check):
    # GPPO's losses -1, -1, 1 (ratios 1), plus 0.5·(3/2)·(-log p) for the two positive tokens, log p = 2 log ½.
    term = 0.5 * 1.5
    check(
        "positive_nll(coefficient=0.5)",
        tokens([[1.0, 1.0], [1.0, None]], [1.0, -1.0]),
        token_loss=[[-1 - term * 2 * HALF, -1 - term * 2 * HALF], [1.0, 0.0]],
        gradient=[[-1 - term, -1 - term], [1.0, 0.0]],
        # Under the token mean the term is 0.5 times the mean of -log p over positive tokens.
        loss=-1 / 3 - 0.5 * 2 * HALF,
    )


def test_value_without_positive_tokens_is_that_of_the_base(tokens, check):
    check("positive_nll", tokens([[1.0]], [-1.0]), token_loss=[[1.0]], gradient=[[1.0]])


def mutate(monkeypatch):
    """The likelihood of bad responses is raised."""
    from testbed.objectives.positive_nll import PositiveNLL

    def wrong(self, batch):
        negative = batch.advantages < 0
        scale = batch.lengths.sum(-1) / negative.sum((-2, -1)).clamp(min=1)
        term = torch.where(negative, -batch.log_probs, 0) * scale[..., None, None]
        return self.wrapped.token_loss(batch) + self.coefficient * term

    monkeypatch.setattr(PositiveNLL, "token_loss", wrong)


def test_rejects_a_negative_coefficient():
    with pytest.raises(ConfigError, match=r"positive_nll: coefficient is -1; expected a value in \[0, inf\)"):
        make_objective("positive_nll", coefficient=-1)
