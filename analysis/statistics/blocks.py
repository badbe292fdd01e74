"""Rollouts of one run are not independent: blocks of them are, nearly, and are what an interval is made of."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.checks import seed_values

__all__ = ["block_length", "block_means"]

_FEWEST = 8
"""Values below which a correlation cannot be told from noise."""


def block_length(values: ArrayLike) -> int:
    """How many successive values make a block, so that means of blocks are nearly uncorrelated; 1: as they are.

        b = ⌈(2ρ/(1 - ρ²))^(2/3) · n^(1/3)⌉

    with ρ the correlation of neighbours around a straight line, 1 unless ρ exceeds 2/√n. A trend is part of the run and
    no noise, so it does not count.

    Reference: Carlstein, The use of subseries values for estimating the variance of a general statistic from a
    stationary sequence, Annals of Statistics 14 (1986): the length that is best for a process of first order.

    >>> block_length([1.0, -1.0] * 20)
    1
    >>> block_length(np.sin(np.arange(100) / 5))  # ρ = 0.967: (30.14)^(2/3) · 100^(1/3) = 44.9
    45
    """
    numbers = seed_values(values, minimum=1)
    count = len(numbers)
    if count < _FEWEST:
        return 1
    places = np.arange(count) - (count - 1) / 2
    centred = numbers - numbers.mean()
    rest = centred - (centred @ places) / (places @ places) * places
    power = float(rest @ rest)
    # A straight line leaves nothing but rounding.
    if power <= 1e-20 * float(numbers @ numbers):
        return 1
    correlation = float(rest[1:] @ rest[:-1]) / power
    if correlation <= 2 / math.sqrt(count):
        return 1
    best: float = (2 * correlation / (1 - correlation**2)) ** (2 / 3) * count ** (1 / 3)
    return min(count, math.ceil(best))


def block_means(values: ArrayLike, length: int) -> NDArray[np.float64]:
    """Means of successive blocks; a rest that is shorter than half a block joins the one before.

    >>> block_means([1.0, 3.0, 5.0, 7.0, 9.0], 2).tolist()
    [2.0, 6.0, 9.0]
    """
    numbers = np.asarray(values, dtype=np.float64)
    cuts = list(range(length, numbers.size, length))
    if cuts and 2 * (numbers.size - cuts[-1]) < length:
        cuts.pop()
    return np.array([part.mean() for part in np.split(numbers, cuts)])
