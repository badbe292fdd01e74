"""Random numbers belong to a master seed, a seed and a purpose, and to nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from testbed.simulation.streams import UniformStreams


@pytest.mark.parametrize(("master", "seed", "purpose"), [(0, 0, 0), (7, 5, 1), (5, 7, 1), (2**40, 3, 0)])
def test_numbers_are_those_of_numpys_generator_row_by_row(master: int, seed: int, purpose: int) -> None:
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((master, seed, purpose))))
    expected = torch.from_numpy(generator.random((4, 3)))
    stream = UniformStreams(master, [seed], 3, purpose)
    assert torch.equal(torch.cat([stream.next().clone() for _ in range(4)]), expected)


def test_no_two_streams_share_numbers() -> None:
    # Sums of the three keys, and their permutations, are among them.
    keys = list(itertools.product(range(5), range(5), range(2)))
    firsts = [UniformStreams(master, [seed], 1, purpose).next().item() for master, seed, purpose in keys]
    assert len(set(firsts)) == len(keys)


def test_they_do_not_depend_on_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(seeds: list[int]) -> Tensor:
        stream = UniformStreams(0, seeds, width=3)
        return torch.stack([stream.next().clone() for _ in range(7)])

    expected = numbers([4, 5])
    for buffer in (1, 12):
        monkeypatch.setattr("testbed.simulation.streams._BUFFER", buffer)
        assert torch.equal(numbers([4, 5]), expected)
        assert torch.equal(numbers([5, 4, 5]), expected[:, [1, 0, 1]])


def test_they_do_not_depend_on_the_company() -> None:
    together = UniformStreams(7, [0, 3, 0, 5], width=9)
    alone = UniformStreams(7, [5], width=9)
    for _ in range(4):
        row, own = together.next(), alone.next().clone()
        assert torch.equal(row[0], row[2])
        assert not torch.equal(row[0], row[1])
        assert torch.equal(row[3], own[0])
