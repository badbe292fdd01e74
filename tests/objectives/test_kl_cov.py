from __future__ import annotations

import math

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import make_objective

LOG2 = math.log(2)


def test_value_by_hand(tokens, check):
    # log p in units of log 2: ratios 2, 1, ½, 1 on q = ½, ½, ½, ⅛ give 0, -1, -2, -3: mean -1.5. A = 3, 1, -1, -3.
    # Cov/log 2 = 1.5·3, 0.5·1, 0.5·1, 1.5·3: k = ½ picks the first (|z| = log 2) and the last (z = 0).
    old = torch.tensor([[0.5, 0.5], [0.5, 0.125]], dtype=torch.float64)
    batch = tokens([[2.0, 1.0], [0.5, 1.0]], [[3.0, 1.0], [-1.0, -3.0]], old=old)
    check(
        "kl_cov(fraction=0.5,penalty=2.0)",
        batch,
        token_loss=[[-6.0 + 2 * LOG2, -1.0], [0.5, 3.0]],
        # The penalty of the last token has its minimum there: no gradient.
        gradient=[[-6.0 + 2.0, -1.0], [0.5, 3.0]],
        loss=(-3.5 + 2 * LOG2) / 4,
    )


def test_value_of_a_token_that_fell(tokens, check):
    # |z| pulls back up: r = ½, z = -log 2, all tokens chosen. A = 0 leaves the penalty alone.
    check(
        "kl_cov(fraction=1.0)",
        tokens([[0.5, 0.5]], [[0.0, 1.0]]),
        token_loss=[[LOG2, LOG2 - 0.5]],
        gradient=[[-1.0, -1.5]],
    )


def mutate(monkeypatch):
    """The penalty falls on the tokens of smallest covariance."""
    import testbed.objectives.kl_cov as module

    right = module.token_covariance
    monkeypatch.setattr(module, "token_covariance", lambda batch: -right(batch))


def test_number_of_tokens_is_rounded_down(tokens):
    batch = tokens([[1.0, 2.0, 0.5, None]], [[1.0, 2.0, 3.0, 0.0]])
    assert make_objective("kl_cov", fraction=0.66).selected(batch).sum() == 1
    assert make_objective("kl_cov", fraction=0.1).selected(batch).sum() == 0
    assert make_objective("kl_cov", fraction=1.0).selected(batch).sum() == 3


def test_rejects_a_negative_penalty():
    with pytest.raises(ConfigError, match=r"kl_cov: penalty is -1; expected a value in \[0, inf\)"):
        make_objective("kl_cov", penalty=-1)


def test_ties_depend_neither_on_the_order_nor_on_what_other_replicas_ask_for():
    # Sixteen tokens of four kinds (log p, A), each four times, every one with a z of its own: all covariances tie.
    log_probs = torch.tensor([[-1.0, -2.0, -1.0, -2.0]] * 4, dtype=torch.float64)
    old = log_probs + torch.linspace(-0.5, 0.5, 16, dtype=torch.float64).view(4, 4)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    mask = torch.ones(4, 4, dtype=torch.bool)

    def penalised(order, fraction):
        picked = torch.tensor(order)
        batch = TokenBatch(
            log_probs=log_probs[picked], old_log_probs=old[picked], advantages=advantages[picked], mask=mask
        )
        return make_objective("kl_cov", fraction=fraction).selected(batch)

    here = penalised([0, 1, 2, 3], 0.125)
    assert here.sum() == 2
    for order in ([3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 3, 1]):
        assert torch.equal(penalised(order, 0.125), here[torch.tensor(order)])

    fractions = torch.tensor([0.125, 0.5, 0.8]).view(3, 1, 1)
    three = TokenBatch(
        log_probs=log_probs.expand(3, 4, 4),
        old_log_probs=old.expand(3, 4, 4),
        advantages=advantages.expand(3, 4),
        mask=mask.expand(3, 4, 4),
    )
    together = make_objective("kl_cov", fraction=fractions).selected(three)
    for row, fraction in zip(together, fractions.flatten().tolist(), strict=True):
        assert torch.equal(row, penalised([0, 1, 2, 3], fraction))
