"""Random numbers that belong to a seed: the same whichever other seeds run beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["UniformStreams"]

# Uniforms kept ready across all replicas: enough to make a generator's call overhead vanish, small enough for cache.
_BUFFER = 1 << 18


class UniformStreams:
    """One independent stream of uniform numbers per seed, read a row at a time.

    Args:
        seed: the master seed.
        seeds: the number of each replica's seed; equal numbers give equal streams, which is how objectives are paired.
        width: how many numbers a replica needs per row.
        purpose: a further key, so that two uses of the same seed do not share numbers.
        device: where the numbers are handed out; they are drawn on the processor, so that every device sees the same.

    Example:
        >>> first = UniformStreams(0, [4, 5], width=3).next()
        >>> bool((first[1] == UniformStreams(0, [5], width=3).next()[0]).all())
        True
    """

    def __init__(
        self,
        seed: int,
        seeds: Sequence[int],
        width: int,
        purpose: int = 0,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        distinct = sorted(set(seeds))
        position = {number: index for index, number in enumerate(distinct)}
        self._gather = torch.tensor([position[number] for number in seeds])
        self._paired = len(distinct) != len(seeds)
        self._device = torch.device(device)
        self._generators = [
            np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, number, purpose))))
            for number in distinct
        ]
        self._rows = max(1, _BUFFER // max(1, width * len(distinct)))
        self._width = width
        # One row more than is used: replicas a power of two apart would compete for the same lines of the cache.
        self._buffer = np.empty((len(distinct), self._rows + 1, width))
        self._used = self._rows

    def next(self) -> Tensor:
        """float64 `(R, width)` in [0, 1)."""
        if self._used == self._rows:
            for generator, rows in zip(self._generators, self._buffer, strict=True):
                generator.random(out=rows[:-1])
            self._used = 0
        row = torch.from_numpy(self._buffer[:, self._used])
        self._used += 1
        return (row[self._gather] if self._paired else row).to(self._device)
