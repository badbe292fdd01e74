"""Q19. Several rewards, summed or standardised one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from analysis.claims.engines import PAPER
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from testbed.advantages import group_standardised
from testbed.advantages.gdpo import gdpo

file_entry(
    Entry(
        number="Q19",
        source=PAPER,
        statement="GDPO: standardising a sum of rewards maps different combinations of them to equal advantages; "
        "standardising each first keeps them apart.",
        status="exact",
    )
)

_SIZE = 4
_COMBINATIONS = tuple(itertools.product((0.0, 1.0), repeat=2))


def _collisions(estimator: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Share of groups of four in which two responses with other rewards than each other get one advantage."""
    drawn = torch.tensor(list(itertools.product(range(4), repeat=_SIZE)))
    rewards = torch.tensor(_COMBINATIONS, dtype=torch.float64)[drawn]
    # Groups one by one: standardising over the batch must not join them.
    advantages = torch.cat([estimator(group[None, :, 0], group[None, :, 1]) for group in rewards])
    apart = drawn.unsqueeze(-1) != drawn.unsqueeze(-2)
    equal = (advantages.unsqueeze(-1) - advantages.unsqueeze(-2)).abs() < 1e-9
    return float((apart & equal).flatten(-2).any(-1).double().mean())


def _one_by_one(first: Tensor, second: Tensor) -> Tensor:
    return gdpo([first, second], epsilon=0.0)


def _summed(first: Tensor, second: Tensor) -> Tensor:
    return group_standardised(first + second, epsilon=0.0)


SOURCE = "GDPO, arXiv 2601.05242, abstract; estimator of TRL 1.16"
SCOPE = "Exact: all 256 groups of four responses with two rewards of 0 or 1."

register(
    ExactClaim(
        id="engines/gdpo-keeps-combinations-apart",
        paper=PAPER,
        judges=("Q19",),
        title="Standardising each reward keeps combinations apart",
        source=SOURCE,
        statement="No two responses of a group with different combinations of two rewards get the same advantage when "
        "each reward is standardised first.",
        scope=f"{SCOPE} Where both rewards have the same spread in a group, (1, 0) and (0, 1) are as equal as before.",
        unit="share of groups",
        measure=lambda: _collisions(_one_by_one),
        tolerance=0.0,
        falsifier=Falsifier("The sum is standardised.", measure=lambda: _collisions(_summed)),
        recorded="refuted",
    )
)

register(
    ExactClaim(
        id="engines/gdpo-merges-fewer-combinations",
        paper=PAPER,
        judges=("Q19",),
        title="Standardising each reward keeps more combinations apart",
        source=SOURCE,
        statement="Standardising each reward first leaves at least a tenth fewer groups in which different "
        "combinations get the same advantage.",
        scope=SCOPE,
        unit="groups, beside those of the sum",
        measure=lambda: _collisions(_one_by_one) / _collisions(_summed),
        tolerance=0.9,
        falsifier=Falsifier(
            "The sum takes the place of both.", measure=lambda: _collisions(_summed) / _collisions(_summed)
        ),
        recorded="reproduced",
    )
)
