from __future__ import annotations

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.testing.functions import FunctionObjective


def surrogate(log_probs, old_log_probs, advantages, mask):
    ratio = torch.exp(log_probs - old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


def per_response(log_probs, old_log_probs, advantages, mask):
    return surrogate(log_probs, old_log_probs, advantages.unsqueeze(1), mask)


def with_entropies(log_probs, old_log_probs, advantages, mask, entropies):
    return surrogate(log_probs, old_log_probs, advantages, mask) - 0.1 * entropies


def batch(**fields):
    generator = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(2, 4, 5, generator=generator, dtype=torch.float64) - 0.1
    new = old + 0.4 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    return TokenBatch(
        log_probs=new.requires_grad_(),
        old_log_probs=old,
        advantages=torch.randn(2, 4, generator=generator, dtype=torch.float64),
        mask=torch.arange(5) < torch.tensor([[5], [1], [3], [4]]).expand(2, 4, 1),
        **fields,
    )


@pytest.mark.parametrize("function", [surrogate, per_response])
def test_replica_by_replica_it_is_the_objective(function):
    given = batch()
    objective = FunctionObjective(function=function)
    expected = make_objective("ppo")(given)
    output = objective(given)
    assert torch.equal(output.token_loss, expected.token_loss)
    gradients = [torch.autograd.grad(item.loss.sum(), given.log_probs)[0] for item in (output, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)
    assert objective.label() == function.__name__


def test_what_it_asks_for_it_needs():
    objective = FunctionObjective(function=with_entropies)
    assert objective.needs == ("entropies",)
    entropies = torch.ones(2, 4, 5, dtype=torch.float64)
    plain = make_objective("ppo").loss(batch())
    torch.testing.assert_close(objective.loss(batch(entropies=entropies)), plain - 0.1, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *given: surrogate(*given).mean(), "returns a single number; an objective needs one loss per token"),
        (lambda log_probs: log_probs, "cannot be called with tensors"),
        ("surrogate", "function is 'surrogate'; expected a function of tensors"),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ConfigError, match=message):
        FunctionObjective(function=function)
