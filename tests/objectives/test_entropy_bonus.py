from __future__ import annotations

import pytest
import torch

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # PPO's -1.1 and -1.2 (held), minus 0.5 times entropies 1 and 3; mean over two tokens.
    batch = tokens([[1.1, 1.5, None]], [1.0], entropies=[[1.0, 3.0, float("nan")]])
    check(
        "entropy_bonus(coefficient=0.5)",
        batch,
        token_loss=[[-1.6, -2.7, 0.0]],
        gradient=[[-1.1, 0.0, 0.0]],
        loss=-4.3 / 2,
    )


def mutate(monkeypatch):
    """The bonus becomes a penalty."""
    from testbed.objectives.entropy_bonus import EntropyBonus

    monkeypatch.setattr(
        EntropyBonus,
        "token_loss",
        lambda self, batch: self.wrapped.token_loss(batch) + self.coefficient * batch.entropies,
    )


def test_gradient_of_the_entropy_flows(tokens):
    entropies = torch.tensor([[1.0, 3.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    batch = tokens([[1.1, 1.5], [1.0, None]], [1.0, 1.0], entropies=entropies)
    (gradient,) = torch.autograd.grad(make_objective("entropy_bonus", coefficient=0.6)(batch).loss, entropies)
    # -0.6/3 at each of three response tokens, nothing at padding.
    expected = torch.tensor([[-0.2, -0.2], [-0.2, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_needs_the_entropies(tokens):
    with pytest.raises(BatchError, match=r"entropies missing from the batch; entropy_bonus reads it"):
        make_objective("entropy_bonus")(tokens([[1.0]], [1.0]))


def test_rejects_a_negative_coefficient():
    with pytest.raises(ConfigError, match=r"entropy_bonus: coefficient is -1; expected a value in \[0, inf\)"):
        make_objective("entropy_bonus", coefficient=-1)
