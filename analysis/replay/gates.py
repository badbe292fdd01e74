"""Where an objective lets a token's gradient through, found by asking the objective itself on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.replay.tallies import ENTROPY, ENTROPY_RATIO, PROBABILITY, RATIO, Axis
from testbed.batch import TokenBatch
from testbed.errors import TestbedError
from testbed.objectives import Objective

__all__ = ["Gate", "entropy_gates", "ratio_gates"]


@dataclass(frozen=True)
class Gate:
    """What is left of a token's push over the bins of two axes, in units of what it has where nothing moved.

    Attributes:
        labels: the objectives that have this gate.
        positive: |∂ℓ/∂log p|/|rA| for A > 0 over its value at ratio 1, `(48, 48)`, x by y.
        negative: the same for A < 0.
    """

    labels: tuple[str, ...]
    positive: np.ndarray
    negative: np.ndarray

    @property
    def acts(self) -> bool:
        """Whether anything is ever held back."""
        return bool((self.positive < 0.5).any() or (self.negative < 0.5).any())


def ratio_gates(objectives: Sequence[Objective]) -> list[Gate]:
    """The gates over the probability when sampled and the ratio; objectives that have the same stand together.

    Each point is a response of one token whose entropy has not moved, so that an objective with one ratio per response
    is drawn over that ratio. Objectives that decide over a whole batch have no picture of their own.
    """
    q, r = _grid(PROBABILITY, RATIO)
    # A new probability above 1 cannot be drawn.
    possible = q + r <= 1e-9
    return _gates(objectives, q, r, torch.ones_like(q), torch.ones_like(q), possible)


def entropy_gates(objectives: Sequence[Objective]) -> list[Gate]:
    """The gates over the entropy when sampled and the entropy ratio, at ratio 1; of objectives that read entropies."""
    old, ratio = _grid(ENTROPY, ENTROPY_RATIO)
    readers = [item for item in objectives if "entropies" in item.needs]
    q = torch.full_like(old, 0.5).log()
    everywhere = torch.ones_like(q, dtype=torch.bool)
    found = _gates(readers, q, torch.zeros_like(q), (old + ratio).exp(), old.exp(), everywhere)
    return [gate for gate in found if gate.acts]


def _grid(x: Axis, y: Axis) -> tuple[Tensor, Tensor]:
    """Natural logarithms of the middles of all pairs of bins, `(x.bins * y.bins, 1)` each."""
    middles = [
        torch.from_numpy((np.log(axis.edges[1:]) + np.log(axis.edges[:-1])) / 2).repeat_interleave(after).repeat(before)
        for axis, after, before in ((x, y.bins, 1), (y, 1, x.bins))
    ]
    return middles[0][:, None], middles[1][:, None]


def _gates(
    objectives: Sequence[Objective], q: Tensor, r: Tensor, entropies: Tensor, old_entropies: Tensor, possible: Tensor
) -> list[Gate]:
    grouped: dict[bytes, Gate] = {}
    for item in objectives:
        if item.needs_whole_batch or not set(item.needs) <= {"entropies", "old_entropies"}:
            continue
        try:
            sides = [
                _kept(item, q, r, entropies, old_entropies, sign)
                / _kept(item, q, torch.zeros_like(r), old_entropies, old_entropies, sign).clamp(min=1e-9)
                for sign in (1.0, -1.0)
            ]
        except TestbedError:
            # It compares responses, or reads something that a grid does not have.
            continue
        shown = [side.where(possible, torch.nan).view(PROBABILITY.bins, RATIO.bins).numpy() for side in sides]
        key = b"".join(np.nan_to_num(side).round(3).tobytes() for side in shown)
        known = grouped.get(key)
        grouped[key] = Gate((*known.labels, item.label()) if known else (item.label(),), shown[0], shown[1])
    return list(grouped.values())


def _kept(item: Objective, q: Tensor, r: Tensor, entropies: Tensor, old_entropies: Tensor, sign: float) -> Tensor:
    log_probs = (q + r).requires_grad_()
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=q,
        advantages=torch.full((len(q),), sign, dtype=q.dtype),
        mask=torch.ones_like(q, dtype=torch.bool),
        entropies=entropies,
        old_entropies=old_entropies,
        groups=torch.arange(len(q)),
    )
    (slopes,) = torch.autograd.grad(item.token_loss(batch.trimmed()).sum(), log_probs)
    return slopes.abs() / r.exp()
