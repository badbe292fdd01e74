"""REINFORCE: the score function, no ratio, no limit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Objective, objective


@objective("reinforce")
@dataclass(frozen=True, kw_only=True)
class Reinforce(Objective):
    """Pushes every sampled token by its advantage; nothing limits the update.

        ℓ = -A · log p          F = 1

    The value contains log p and is therefore not comparable with that of a ratio objective.

    Reference: Williams, Simple statistical gradient-following algorithms for connectionist reinforcement learning,
        Machine Learning 8, 1992.
    Departures: none.
    Gradient: dℓ/dlog p = -A for every response token; nothing flows elsewhere.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> log_probs = torch.tensor([[-0.5, -2.0]])
        >>> ones = torch.ones(1, 2)
        >>> batch = TokenBatch(log_probs=log_probs, old_log_probs=log_probs, advantages=ones, mask=ones.bool())
        >>> Reinforce()(batch).loss.item()  # (0.5 + 2.0) / 2
        1.25
    """

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return -batch.advantages * batch.log_probs

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor:
        return -batch.advantages
