from __future__ import annotations

import pytest
import torch

from testbed.simulation.optimisers import clip_by_norm, gradient_norm, optimisers

TORCH = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@pytest.mark.parametrize("name", optimisers.names())
def test_equals_torch_replica_by_replica(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    gradients = [torch.randn(3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(6)]
    rates = torch.tensor([0.1, 0.01, 1.0], dtype=torch.float64)

    ours = start.clone()
    optimiser = optimisers[name]([ours], rates)
    for gradient in gradients:
        optimiser.step([gradient])

    for replica in range(3):
        theirs = torch.nn.Parameter(start[replica].clone())
        reference = TORCH[name]([theirs], lr=rates[replica].item())
        for gradient in gradients:
            theirs.grad = gradient[replica].clone()
            reference.step()
        torch.testing.assert_close(ours[replica], theirs.detach(), rtol=1e-9, atol=1e-12)


def test_norm_and_clipping_equal_torch_replica_by_replica() -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(4, 3, generator=generator), torch.randn(4, 2, 2, generator=generator)]
    gradients = [
        gradient.double() * torch.tensor([0.01, 0.1, 1.0, 10.0]).view(-1, *[1] * (gradient.dim() - 1))
        for gradient in gradients
    ]
    norm = gradient_norm(gradients)
    clipped = clip_by_norm(gradients, norm, 0.5)
    for replica in range(4):
        theirs = [torch.nn.Parameter(torch.zeros_like(gradient[replica])) for gradient in gradients]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient[replica].clone()
        total = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        assert norm[replica].item() == pytest.approx(total.item(), rel=1e-12)
        for parameter, gradient in zip(theirs, clipped, strict=True):
            # torch divides by norm + 1e-6.
            torch.testing.assert_close(gradient[replica], parameter.grad, rtol=1e-4, atol=0)
    assert (norm > 0.5).any()
    assert (norm < 0.5).any()


def test_zero_gradient_survives_clipping() -> None:
    zero = torch.zeros(2, 3)
    assert torch.equal(clip_by_norm([zero], gradient_norm([zero]), 1.0)[0], zero)


def test_no_limit_leaves_even_a_norm_that_overflows_alone() -> None:
    # The square of 1e30 is infinite in single precision.
    large = torch.tensor([[1e30, 1.0]])
    norm = gradient_norm([large])
    assert norm.isinf().all()
    assert torch.equal(clip_by_norm([large], norm, float("inf"))[0], large)
