"""Batches written as ratios, so that a test reads like the derivation beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from testbed import TokenBatch
from testbed.objectives import Objective, make_objective

Rows = Sequence[Sequence[float | None]]


@pytest.fixture(scope="session")
def tokens() -> Callable[..., TokenBatch]:
    return _tokens


@pytest.fixture(scope="session")
def check() -> Callable[..., None]:
    return _check


@pytest.fixture(scope="session")
def far() -> Callable[..., tuple[float, list[float]]]:
    return _far


def _far(name: str, log_ratios: Sequence[float], *, advantage: float = 1.0) -> tuple[float, list[float]]:
    """Loss and dL/dlog p of one response with these log-ratios, however large."""
    old = torch.full((1, len(log_ratios)), -100.0, dtype=torch.float64)
    new = (old + torch.tensor([log_ratios], dtype=torch.float64)).requires_grad_()
    advantages = torch.full((1,), advantage, dtype=torch.float64)
    batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=advantages, mask=old < 0)
    loss = make_objective(name)(batch).loss
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.item(), gradient[0].tolist()


def _tokens(ratios: Rows, advantages: Sequence[Any], *, old: Any = 0.25, **optional: Any) -> TokenBatch:
    """A float64 batch with these token ratios; None marks padding.

    Args:
        ratios: p/q of each token, `(B, T)`.
        advantages: one per response, or one per token.
        old: q, one number or one per token.
        optional: other fields of the batch, as nested lists.
    """
    mask = torch.tensor([[ratio is not None for ratio in row] for row in ratios])
    filled = torch.tensor([[1.0 if ratio is None else ratio for ratio in row] for row in ratios], dtype=torch.float64)
    old_log_probs = torch.as_tensor(old, dtype=torch.float64).log().expand(filled.shape)
    counts = {key: optional.pop(key) for key in ("token_count", "sequence_count") if key in optional}
    if "groups" in optional:
        counts["groups"] = torch.tensor(optional.pop("groups"))
    return TokenBatch(
        log_probs=(old_log_probs + filled.log()).requires_grad_(),
        old_log_probs=old_log_probs,
        advantages=torch.tensor(advantages, dtype=torch.float64),
        mask=mask,
        **{key: torch.as_tensor(value, dtype=torch.float64) for key, value in optional.items()},
        **counts,
    )


def _check(
    objective: str | Objective,
    batch: TokenBatch,
    *,
    token_loss: Sequence[Sequence[float]] | None = None,
    gradient: Sequence[Sequence[float]] | None = None,
    loss: float | None = None,
) -> None:
    """Compare token losses, their summed gradient with respect to log p, and the reduced loss with hand derivations.

    Token losses and gradients are given at response tokens and 0 at padding.
    """
    objective = make_objective(objective)
    if token_loss is not None:
        _close(objective(batch).token_loss, token_loss)
    if gradient is not None:
        total = objective.token_loss(batch).sum()
        (actual,) = torch.autograd.grad(total, batch.log_probs)
        # The batch masks the caller's tensor on the way in; what arrives at padding here goes no further.
        _close(actual.masked_fill(~batch.mask, 0), gradient)
    if loss is not None:
        _close(objective(batch).loss.detach(), loss)


def _close(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)
