"""Small batches in which every branch of a loss is met, the smallest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from testbed.batch import TokenBatch

__all__ = ["Probe", "make_probe", "probes"]

_RATIOS = (1.05, 0.5, 1.9, 0.93, 1.24, 6.0, 12.0, 0.02, 1.0002)
_OLD = 0.07


@dataclass(frozen=True)
class Probe:
    """The raw fields of a batch, float64 `(B, T)`. What stands at padding is plausible: a loss may read it by mistake.

    Attributes:
        fields: by the names of `TokenBatch`.
    """

    fields: Mapping[str, Tensor]

    def leaf(self) -> Tensor:
        """Fresh current log-probabilities, to take a gradient of."""
        return self.fields["log_probs"].clone().requires_grad_()

    def batch(self, leaf: Tensor, **changes: Tensor) -> TokenBatch:
        """The batch on this leaf, with some fields replaced."""
        return TokenBatch(**{**self.fields, "log_probs": leaf, **changes})

    def describe(self, place: tuple[int, int]) -> str:
        """The probe in words, with the numbers of one token."""
        rows, width = self.fields["mask"].shape
        lengths = self.fields["mask"].sum(-1).tolist()
        new, old = (float(self.fields[name][place]) for name in ("log_probs", "old_log_probs"))
        advantage = float(self.fields["advantages"][place])
        size = f"{rows} response{'s' * (rows > 1)} of {', '.join(map(str, lengths))} token{'s' * (max(lengths) > 1)}"
        padded = f" (padded to {width})" if min(lengths) < width else ""
        where = "" if rows * width == 1 else f"; response {place[0]}, token {place[1]} has"
        return (
            f"{size}{padded}{where or ':'} ratio {_number(torch.tensor(new - old).exp().item())} "
            f"(log_probs {_number(new)}, old_log_probs {_number(old)}), advantage {_number(advantage)}"
        )


def _number(value: float) -> str:
    return f"{value:.6g}"


@cache
def probes() -> tuple[Probe, ...]:
    """Single tokens, one response of two, two and three of different lengths, groups of eight, and a longer one.

    >>> len(probes()[0].fields["mask"])
    1
    """
    return tuple(_probes())


def _probes() -> Iterator[Probe]:
    for ratio in _RATIOS:
        for advantage in (1.0, -0.7):
            yield make_probe([[ratio]], [[advantage]], [[True]])
    for advantage in (1.0, -1.0):
        yield make_probe([[1.9, 0.6]], [[advantage] * 2], [[True, True]])
    yield make_probe([[1.05, 0.98], [1.03, 1.5]], [[1.0] * 2, [-0.6] * 2], [[True, True], [True, False]])
    yield make_probe(
        [[1.05, 0.6, 1.4, 0.97], [1.3, 0.7, 3.0, 2.0], [1.1, 1.0, 9.0, 9.0]],
        [[1.2] * 4, [-0.8] * 4, [-0.3] * 4],
        [[True] * 4, [True, True, False, False], [True, False, False, False]],
    )
    generator = torch.Generator().manual_seed(0)
    for rows, width, spread in ((8, 6, 0.3), (8, 6, 1.0), (6, 40, 0.02)):
        ratios = (spread * torch.randn(rows, width, generator=generator, dtype=torch.float64)).exp()
        rewards = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
        advantages = ((rewards - rewards.mean()) / rewards.std()).expand(rows, width)
        lengths = torch.tensor([width, 1, 4, 2, 5, 3, width, 2])[:rows, None]
        yield make_probe(ratios.tolist(), advantages.tolist(), (torch.arange(width) < lengths).tolist())


def make_probe(ratios: list[list[float]], advantages: list[list[float]], mask: list[list[bool]]) -> Probe:
    """A probe of these ratios, with the optional fields of a batch.

    Args:
        ratios: p/q, `(B, T)`.
        advantages: `(B, T)`.
        mask: `(B, T)`.
    """
    ratio = torch.tensor(ratios, dtype=torch.float64)
    place = torch.arange(ratio.numel(), dtype=torch.float64).view_as(ratio)
    old = torch.full_like(ratio, _OLD).log() - 0.1 * (place % 3)
    entropies = 0.4 + 0.3 * (place % 4)
    return Probe(
        {
            "log_probs": old + ratio.log(),
            "old_log_probs": old,
            "advantages": torch.tensor(advantages, dtype=torch.float64),
            "mask": torch.tensor(mask),
            "entropies": entropies * (1 + 0.03 * (place % 5 - 2)),
            "old_entropies": entropies,
            "old_kappas": 0.05 * (place % 6),
            "sampler_log_probs": old + 0.2 * (place % 2) - 0.05,
            "ref_log_probs": old - 0.1 + 0.3 * (place % 2),
        }
    )
