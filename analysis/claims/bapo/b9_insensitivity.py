"""B9. How little target, ranges, steps and the order of the search matter."""

from __future__ import annotations

import numpy as np
import torch

from analysis.claims.bapo import CITATION, LONG_SCOPE, LONGER_WHEN_WRONG, PAPER, SCOPE, bapo
from analysis.judging.claim import ExactClaim, Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import random_tokens
from testbed.batch import TokenBatch
from testbed.objectives.bapo import BAPO

file_entry(
    Entry(
        number="B9",
        source=PAPER,
        statement="The averages hardly depend on the target (66.7/66.7/66.1 for 0.40 to 0.50), the ranges (65.5 to "
        "66.9) or the steps (66.7 to 66.9).",
        status="toy",
        reason="Ranges and steps are not varied; the order of the search, where paper and code differ, is.",
    )
)

register(
    StatisticalClaim(
        id="bapo/insensitive-reward",
        paper=PAPER,
        judges=("B9",),
        title="The final reward does not depend on the target",
        source=f"{CITATION}, statement B9",
        statement="Targets of 0.4 and 0.5 end within 0.01 of each other in reward.",
        scope=f"{SCOPE} Rollouts of two tokens at a time, where the higher target makes the search move.",
        unit="reward",
        setting=MODULAR_SUM | {"partial": 2},
        arms={"0.5": bapo(target=0.5), "0.4": bapo()},
        estimand=difference(final("exact/return"), of="0.5", minus="0.4"),
        direction="equivalent",
        threshold=0.01,
        planted=0.0,
        acts=(("0.4", "clip/fraction"),),
        curves=("exact/regret", "bapo/clip_high"),
        falsifier=Falsifier("The target is 0.6, outside the paper's range.", {"0.5": bapo(target=0.6)}),
        tier="full",
        recorded="reproduced",
        seeds=20,
    )
)

register(
    StatisticalClaim(
        id="bapo/insensitive-regret",
        paper=PAPER,
        judges=("B9",),
        title="The speed of learning does not depend on the target",
        source=f"{CITATION}, statement B9",
        statement="Targets of 0.4 and 0.5 have mean regrets within 0.01 of each other.",
        scope=f"{LONG_SCOPE} 40 iterations; there the search moves at both targets.",
        unit="reward",
        setting=LONGER_WHEN_WRONG,
        arms={"0.5": bapo(target=0.5), "0.4": bapo()},
        estimand=difference(average("exact/regret"), of="0.5", minus="0.4"),
        direction="equivalent",
        threshold=0.01,
        planted=0.0,
        acts=(("0.4", "clip/fraction"),),
        curves=("exact/regret", "bapo/clip_high"),
        falsifier=Falsifier("The target is 1, which no share reaches.", {"0.5": bapo(target=1.0)}),
        recorded="refuted",
        notes=(
            "Every higher target learns faster here, up to bounds of 0.9 and 3. The paper's insensitivity is that of a "
            "final score, which does not differ here either.",
        ),
        tier="full",
        seeds=128,
    )
)

register(
    StatisticalClaim(
        id="bapo/order-of-the-search",
        paper=PAPER,
        judges=("B9",),
        title="Which bound the search raises first hardly matters",
        source=f"{CITATION}, algorithm 1, against the order of the released code",
        statement="Raising the lower bound first, as the released code does, moves the mean regret by less than 0.01.",
        scope=f"{LONG_SCOPE} 40 iterations, target 0.5, the paper's ranges and steps for both.",
        unit="reward",
        setting=LONGER_WHEN_WRONG,
        arms={"lower first": bapo(target=0.5, order="lower_first"), "upper first": bapo(target=0.5)},
        estimand=difference(average("exact/regret"), of="lower first", minus="upper first"),
        # In most seeds the orders hardly differ, in one of dozens by several times the threshold.
        statistic="iqm",
        direction="equivalent",
        threshold=0.01,
        planted=0.0,
        acts=(("upper first", "clip/fraction"),),
        curves=("exact/regret", "bapo/clip_low", "bapo/clip_high"),
        falsifier=Falsifier("The lower-first search has a target of 0.", {"lower first": bapo(target=0.0)}),
        recorded="reproduced",
        notes=("Where the target is out of reach both orders end at the same widest bounds.",),
        tier="full",
        seeds=64,
    )
)


def _random_batch(seed: int) -> TokenBatch:
    tokens = random_tokens(seed)
    return TokenBatch(
        log_probs=torch.tensor(tokens.log_probs),
        old_log_probs=torch.tensor(tokens.old_log_probs),
        advantages=torch.tensor(tokens.advantages),
        mask=torch.tensor(tokens.mask),
    )


def _largest_rise(contribution: str) -> float:
    """Largest increase of the positive share when the lower bound rises by a step, over random batches."""
    worst = -np.inf
    for seed in range(20):
        lows = torch.linspace(0.6, 0.9, 16, dtype=torch.float64)
        objective = BAPO(contribution=contribution)  # type: ignore[arg-type]
        shares = objective.positive_shares(_random_batch(seed), lows, torch.full_like(lows, 3.0))
        worst = max(worst, float(shares.diff().max()))
    return max(worst, 0.0)


register(
    ExactClaim(
        id="bapo/second-phase-cannot-help",
        paper=PAPER,
        judges=("B9",),
        title="Raising the lower bound never raises the measured share",
        source=f"{CITATION}, eq. 8 and algorithm 1 (a consequence the paper does not state)",
        statement="The positive share ρ of eq. 8 as printed never rises with the lower bound, so the second phase of "
        "the search cannot reach its target.",
        scope="Exact, on random batches with ratios on both sides of every bound. It concerns the printed formula; "
        "counting only tokens that keep a gradient does raise the share, and that is the falsifier.",
        unit="share of Σ|min(rA, clip(r)A)|",
        measure=lambda: _largest_rise("value"),
        tolerance=1e-15,
        falsifier=Falsifier(
            "Only tokens that keep a gradient are counted, as the paper's text describes.",
            measure=lambda: _largest_rise("active"),
        ),
        recorded="reproduced",
    )
)


def _missed(searching: str, against: str) -> float:
    """How often one order of the search misses a target that the other order reaches, over batches and targets."""
    targets = torch.linspace(0.2, 0.8, 61, dtype=torch.float64).view(-1, 1, 1)
    missed = 0
    for seed in range(20):
        batch = _random_batch(seed)
        reached = {}
        for order in (searching, against):
            objective = BAPO(target=targets, order=order)  # type: ignore[arg-type]
            low, high = (bound.squeeze(-1) for bound in objective.search(batch))
            reached[order] = objective.positive_shares(batch, low, high) >= targets.squeeze(-1)
        missed += int((reached[against] & ~reached[searching]).sum())
    return float(missed)


register(
    ExactClaim(
        id="bapo/upper-first-reaches-more",
        paper=PAPER,
        judges=("B9",),
        title="The paper's order of the search reaches every target the released order reaches",
        source=f"{CITATION}, algorithm 1, against the order of the released code",
        statement="Whatever share the search reaches by raising the lower bound first, it reaches by raising the upper "
        "bound first.",
        scope="Exact, on random batches and targets from 0.2 to 0.8. The converse is false, and that is the falsifier: "
        "a raised lower bound spoils the share before the upper bound gets its turn.",
        unit="missed targets",
        measure=lambda: _missed("upper_first", against="lower_first"),
        tolerance=0.0,
        falsifier=Falsifier(
            "The two orders change places.", measure=lambda: _missed("lower_first", against="upper_first")
        ),
        recorded="reproduced",
    )
)
