"""A wrapper that trains on half of every group and watches the other half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives import Wrapper


@dataclass(frozen=True, kw_only=True)
class _HalfTrained(Wrapper):
    """Trains on every second response and watches the others: which of their tokens move without being trained on.

    `drift/unsampled` is the mean |log r| over tokens of held-out responses that no trained response contains, in the
    same state: equal old log-probabilities are taken for the same action of the same state.
    """

    name: ClassVar[str] = "half_trained"

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self.wrapped.token_loss(batch).where(_trained(batch), 0)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor | None:
        gradient = self.wrapped.log_prob_gradient(batch) if self.wrapped.has_closed_form else None
        return None if gradient is None else gradient.where(_trained(batch), 0)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        old, moved = batch.old_log_probs, batch.log_ratio.detach().abs()
        held_out = old[..., 1::2, :]
        sampled = (held_out.unsqueeze(-2) == old[..., ::2, :].unsqueeze(-3)).any(-2)
        unsampled = batch.mask[..., 1::2, :] & ~sampled
        drift = moved[..., 1::2, :].where(unsampled, 0).sum((-2, -1)) / unsampled.sum((-2, -1))
        return {**self.wrapped.own_metrics(batch), "drift/unsampled": drift}


def half_trained(base: str) -> Wrapper:
    """The objective `base`, trained on every second response."""
    return _HalfTrained(base=base)


def _trained(batch: TokenBatch) -> Tensor:
    trained = torch.zeros_like(batch.mask)
    trained[..., ::2, :] = True
    return trained
