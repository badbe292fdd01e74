"""Q21. A deviation of the batch, and one of the group."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from analysis.claims.engines import PAPER, rewards_by_count
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from testbed.advantages import make_advantage_estimator

file_entry(
    Entry(
        number="Q21",
        source=PAPER,
        statement="Dividing by the deviation of the whole batch is more robust than by that of the group on easy and "
        "hard prompts, whose small deviation inflates their advantages.",
        status="exact",
    )
)

_SIZE = 8


def _relative_weight(estimator: str, hard: float, even: float = 0.5) -> float:
    """What a prompt of success rate `hard` weighs beside one of `even` in the same batch, exactly.

    All pairs of numbers of successes are enumerated; the weight is what multiplies the prompt's own ∇p.
    """
    groups = rewards_by_count(_SIZE)
    counts = torch.arange(_SIZE + 1)
    pairs = torch.cartesian_prod(counts, counts)
    batches = groups[pairs]
    advantages = make_advantage_estimator(estimator)(batches)
    chances = [_binomial(rate)[pairs[:, place]] for place, rate in enumerate((hard, even))]
    both = chances[0] * chances[1]
    weights = []
    for place, rate in enumerate((hard, even)):
        right = pairs[:, place]
        above = right * advantages[:, place, 0] / rate
        below = (_SIZE - right) * advantages[:, place, -1] / (1 - rate)
        weights.append(float((both * (above - below)).sum() / _SIZE))
    return weights[0] / weights[1]


def _binomial(rate: float) -> Tensor:
    return torch.tensor(
        [math.comb(_SIZE, m) * rate**m * (1 - rate) ** (_SIZE - m) for m in range(_SIZE + 1)], dtype=torch.float64
    )


_batch: Callable[[float], float] = partial(_relative_weight, "batch_standardised")
_group: Callable[[float], float] = partial(_relative_weight, "group_standardised")

SCOPE = "Exact, by enumeration of the 81 outcomes of a batch of two prompts with eight responses each."

register(
    ExactClaim(
        id="engines/group-deviation-inflates-hard-prompts",
        paper=PAPER,
        judges=("Q21",),
        title="A group's own deviation makes hard prompts heavier",
        source="arXiv 2508.08221 as TRL 1.16 cites it",
        statement="Beside a prompt of success rate one half, one of 0.02 weighs at least a quarter more under the "
        "deviation of its own group.",
        scope=SCOPE,
        unit="weight, below 1.25",
        measure=lambda: max(0.0, 1.25 - _group(0.02)),
        tolerance=0.0,
        falsifier=Falsifier("The deviation is that of the batch.", measure=lambda: max(0.0, 1.25 - _batch(0.02))),
        recorded="reproduced",
    )
)

register(
    ExactClaim(
        id="engines/batch-deviation-treats-prompts-alike",
        paper=PAPER,
        judges=("Q21",),
        title="A deviation of the batch weighs prompts alike",
        source="arXiv 2508.08221 as TRL 1.16 cites it",
        statement="Under the deviation of the batch a prompt of success rate 0.02 weighs as much as one of one half, "
        "to within ten percent.",
        scope=SCOPE,
        unit="weight, beside 1",
        measure=lambda: abs(_batch(0.02) - 1),
        tolerance=0.1,
        falsifier=Falsifier("The deviation is that of the group.", measure=lambda: abs(_group(0.02) - 1)),
        recorded="reproduced",
    )
)
