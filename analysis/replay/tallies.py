"""What a record says that no objective changes, counted while it streams by: bins instead of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.reductions import reduction_names, token_weights

__all__ = ["Axis", "Densities", "Tallies"]

_PROBABILITIES = (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
"""Edges of the bins of q in which trainer and sampler are compared."""
_PARTS = 3
"""Of a run, so that a picture of it can be seen to move."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis of a density: bins of equal width in the logarithm, what lies beyond is in the last one.

    Attributes:
        name: what is on it.
        low: natural logarithm of its lower end.
        high: of its upper end.
        bins: how many.
    """

    name: str
    low: float
    high: float
    bins: int = 48

    def place(self, logs: Tensor) -> Tensor:
        """The bin of each value, given as its natural logarithm."""
        share = (logs - self.low) / (self.high - self.low)
        return (share * self.bins).long().clamp(0, self.bins - 1)

    @property
    def edges(self) -> np.ndarray:
        """Of the bins, as values."""
        return np.exp(np.linspace(self.low, self.high, self.bins + 1))


PROBABILITY = Axis("probability when sampled", float(np.log(1e-4)), 0.0)
RATIO = Axis("ratio", float(np.log(0.4)), float(np.log(2.5)))
ENTROPY = Axis("entropy when sampled", float(np.log(1e-3)), float(np.log(10.0)))
ENTROPY_RATIO = Axis("entropy ratio", float(np.log(0.5)), float(np.log(2.0)))


@dataclass(frozen=True)
class Densities:
    """Counts of tokens over two axes, for each third of the run; tokens whose ratio is 1 are left out.

    Attributes:
        probability: `(3, 48, 48)`, by `PROBABILITY` and `RATIO`.
        entropy: the same by `ENTROPY` and `ENTROPY_RATIO`; `None` where entropies were not recorded.
        rollouts: first and last of each third; `(3, 2)`.
    """

    probability: np.ndarray
    entropy: np.ndarray | None
    rollouts: np.ndarray


class Tallies:
    """Counts over a record.

    Args:
        rollouts: every rollout that the record holds, in order.
    """

    def __init__(self, rollouts: Sequence[int]) -> None:
        parts = np.array_split(np.asarray(rollouts), _PARTS)
        self._part_of = {int(step): number for number, part in enumerate(parts) for step in part}
        self._spans = np.array([[part[0], part[-1]] if len(part) else [-1, -1] for part in parts])
        self._probability = torch.zeros(_PARTS * PROBABILITY.bins * RATIO.bins, dtype=torch.int64)
        self._entropy: Tensor | None = None
        self._mismatch = np.zeros((len(_PROBABILITIES) - 1, 4))
        self._lengths: dict[tuple[str, int], np.ndarray] = {}

    def add(self, batch: TokenBatch, steps: Sequence[int]) -> None:
        """Take in a stack of batches `(N, B, T)` of these rollouts."""
        self._count_densities(batch, steps)
        self._count_mismatch(batch)
        self._count_lengths(batch)

    @property
    def densities(self) -> Densities:
        """See `Densities`."""
        shape = (_PARTS, PROBABILITY.bins, RATIO.bins)
        entropy = None if self._entropy is None else self._entropy.view(shape).numpy()
        return Densities(self._probability.view(shape).numpy(), entropy, self._spans)

    def mismatch(self) -> pd.DataFrame:
        """Trainer against sampler, by probability: a row a bin of q.

        `tokens`, and means over them of log p_sampler - log q (`difference`), of its absolute value (`size`), and of
        e^-d - 1 + d with d the difference (`k3`), which estimates KL(sampler‖trainer). Empty without the sampler's
        log-probabilities; NaN where a bin has no token.
        """
        low, high = _PROBABILITIES[:-1], _PROBABILITIES[1:]
        tokens = self._mismatch[:, 0]
        if not tokens.any():
            return pd.DataFrame(columns=["from", "to", "tokens", "difference", "size", "k3"])
        with np.errstate(invalid="ignore"):
            means = self._mismatch[:, 1:] / tokens[:, None]
        found = pd.DataFrame(means, columns=["difference", "size", "k3"])
        found.insert(0, "tokens", tokens.astype(int))
        found.insert(0, "to", high)
        found.insert(0, "from", low)
        return found

    def lengths(self) -> pd.DataFrame:
        """What responses of a length weigh under each reduction: a row a reduction and bin of lengths.

        `weight` is the mean of Σ_t ∂L/∂ℓ_t of a response divided by that of its update, `token_weight` the same of one
        of its tokens: 1 everywhere where responses, or tokens, weigh alike.
        """
        rows = [
            {
                "reduction": reduction,
                "from": 2**power,
                "to": 2 ** (power + 1) - 1,
                "responses": int(sums[0]),
                "weight": sums[1] / sums[0],
                "token_weight": sums[2] / sums[0],
            }
            for (reduction, power), sums in sorted(self._lengths.items())
        ]
        return pd.DataFrame(rows, columns=["reduction", "from", "to", "responses", "weight", "token_weight"])

    # -- counting ----------------------------------------------------------------------------------------------

    def _count_densities(self, batch: TokenBatch, steps: Sequence[int]) -> None:
        moved = batch.mask & (batch.log_probs.detach() != batch.old_log_probs)
        parts = torch.tensor([self._part_of[step] for step in steps]).view(-1, 1, 1).expand_as(moved)[moved]
        ratios = batch.unclamped_log_ratio.detach()[moved]
        _add_to(self._probability, parts, PROBABILITY, batch.old_log_probs[moved], RATIO, ratios)
        if batch.entropies is None or batch.old_entropies is None:
            return
        if self._entropy is None:
            self._entropy = torch.zeros(_PARTS * ENTROPY.bins * ENTROPY_RATIO.bins, dtype=torch.int64)
        # As the entropy band has it, so that a state without entropy has a ratio.
        now, old = ((values.detach()[moved] + 1e-8).log() for values in (batch.entropies, batch.old_entropies))
        _add_to(self._entropy, parts, ENTROPY, old, ENTROPY_RATIO, now - old)

    def _count_mismatch(self, batch: TokenBatch) -> None:
        if batch.sampler_log_probs is None:
            return
        old = batch.old_log_probs[batch.mask].double().numpy()
        difference = batch.sampler_log_probs[batch.mask].double().numpy() - old
        bins = np.clip(np.searchsorted(_PROBABILITIES, np.exp(old), side="right") - 1, 0, len(_PROBABILITIES) - 2)
        k3 = np.expm1(-difference) + difference
        for column, values in enumerate((np.ones_like(old), difference, np.abs(difference), k3)):
            self._mismatch[:, column] += np.bincount(bins, values, minlength=len(self._mismatch))

    def _count_lengths(self, batch: TokenBatch) -> None:
        counts = batch.mask.sum(-1)
        present = counts > 0
        powers = torch.frexp(counts[present].double())[1].numpy() - 1
        for name in reduction_names():
            try:
                of_tokens = token_weights(batch.mask, name).amax(-1)
            except ConfigError:
                # A reduction of somebody's own, whose weights are not known in closed form.
                continue
            whole = of_tokens * counts
            mean = whole.sum(-1, keepdim=True) / present.sum(-1, keepdim=True)
            token_mean = whole.sum(-1, keepdim=True) / counts.sum(-1, keepdim=True)
            relative = (whole / mean)[present].numpy()
            of_token = (of_tokens / token_mean)[present].numpy()
            for power in np.unique(powers):
                chosen = powers == power
                sums = np.array([chosen.sum(), relative[chosen].sum(), of_token[chosen].sum()])
                key = (name, int(power))
                self._lengths[key] = self._lengths.get(key, np.zeros(3)) + sums


def _add_to(counts: Tensor, parts: Tensor, x: Axis, x_logs: Tensor, y: Axis, y_logs: Tensor) -> None:
    place = (parts * x.bins + x.place(x_logs)) * y.bins + y.place(y_logs)
    counts += torch.bincount(place, minlength=counts.numel())
