"""The wrapper behind the claims on unsampled drift: what it trains, and what it watches."""

from __future__ import annotations

import math

import pytest
import torch

from analysis.claims.erc.half_trained import half_trained
from testbed import TokenBatch
from testbed.objectives import make_objective


def batch(log_probs: torch.Tensor) -> TokenBatch:
    """Four responses of two tokens; the first and third are trained on."""
    old = torch.tensor([[0.5, 0.2], [0.5, 0.3], [0.1, 0.2], [0.4, 0.6]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    return TokenBatch(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64).expand(4, 2),
        mask=mask,
    )


OLD = torch.tensor([[0.5, 0.2], [0.5, 0.3], [0.1, 0.2], [0.4, 0.6]], dtype=torch.float64).log()


def test_only_every_second_response_has_a_gradient() -> None:
    log_probs = OLD.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(half_trained("dapo")(batch(log_probs)).loss, log_probs)
    # Seven response tokens; at ratio 1 a trained one has -A/7 and a held-out one nothing.
    expected = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64) / 7
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_closed_form_gradient_is_the_one_of_the_loss() -> None:
    objective = half_trained("dapo")
    log_probs = (OLD + torch.tensor([0.1, -0.4], dtype=torch.float64)).requires_grad_()
    current = batch(log_probs)
    (gradient,) = torch.autograd.grad(objective.token_loss(current).sum(), log_probs)
    closed = objective.log_prob_gradient(batch(log_probs.detach()))
    assert closed is not None
    assert (gradient != 0).any()
    torch.testing.assert_close(closed.masked_fill(~current.mask, 0), gradient, rtol=1e-12, atol=0)


def test_drift_counts_held_out_tokens_that_no_trained_response_has_there() -> None:
    moved = OLD + torch.tensor([[0.0, 0.0], [9.0, -0.3], [0.0, 0.0], [0.1, 9.0]], dtype=torch.float64)
    # Held out: 0.5 at the first place is trained in response 0; 0.3 at the second and 0.4 at the first are not, and
    # 0.6 is no response token. Mean of 0.3 and 0.1.
    drift = half_trained("dapo").own_metrics(batch(moved))["drift/unsampled"]
    assert drift.item() == pytest.approx(0.2, rel=1e-12)


def test_drift_without_an_unsampled_token_is_missing() -> None:
    same = OLD.clone()
    same[1] = same[0]
    same[3] = same[2]
    everything_sampled = TokenBatch(
        log_probs=same,
        old_log_probs=same,
        advantages=torch.ones(4, 2, dtype=torch.float64),
        mask=torch.ones(4, 2).bool(),
    )
    drift = half_trained("dapo").own_metrics(everything_sampled)["drift/unsampled"]
    assert math.isnan(drift.item())


def test_the_base_keeps_its_metrics_and_needs() -> None:
    wrapped = half_trained("erc")
    assert wrapped.needs == make_objective("erc").needs
