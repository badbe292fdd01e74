"""Q15. MaxRL's gradient as maximum likelihood."""

from __future__ import annotations

from functools import partial

import numpy as np

from analysis.claims.engines import PAPER, expected_factor, largest
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.ledger.entry import Entry, file_entry
from testbed.advantages import make_advantage_estimator

SOURCE = "MaxRL, arXiv 2602.02710, project page; estimator of prime-rl and of the authors' code"

file_entry(
    Entry(
        number="Q15",
        source=PAPER,
        statement="MaxRL follows the likelihood of success: a prompt of success rate p weighs 1/p, where GRPO gives it "
        "1/√(p(1-p)) and leave-one-out 1; pass@1 is similar to GRPO's or better, pass@k higher, at 7.9 to 19.2 times "
        "the efficiency.",
        status="exact",
        reason="Scores and efficiency are of a language model out of reach here.",
    )
)

_RATES = np.array([0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 0.99])
_SIZES = (2, 4, 8, 16)
_maxrl = partial(expected_factor, make_advantage_estimator("maxrl"))


def _truncation_error(orders: int) -> float:
    """Largest difference from the derivative of Σ_k (1-p)^k/k, cut at order G - 1 + `orders`."""
    return largest(
        [
            _maxrl(rate, size) - sum((1 - rate) ** (k - 1) for k in range(1, size + orders))
            for rate in _RATES
            for size in _SIZES
        ]
    )


register(
    ExactClaim(
        id="engines/maxrl-is-truncated-likelihood",
        paper=PAPER,
        judges=("Q15",),
        title="MaxRL follows the log-likelihood cut at order G - 1",
        source=f"{SOURCE}; order G - 1 follows by enumeration, prime-rl's docstring says G",
        statement="In expectation MaxRL multiplies the policy gradient of a prompt by Σ_{k=1}^{G-1} (1-p)^{k-1}: the "
        "gradient of log p expanded in powers of 1 - p and cut at order G - 1.",
        scope="Exact, in float64, by enumeration: groups of 2 to 16, success rates of 0.01 to 0.99, any policy class. "
        "Groups without a success give nothing.",
        unit="multiples of the policy gradient",
        measure=lambda: _truncation_error(0),
        tolerance=1e-10,
        falsifier=Falsifier("The expansion is cut at order G.", measure=lambda: _truncation_error(1)),
        recorded="reproduced",
    )
)


def _from_inverse(size: int) -> float:
    """Largest relative difference of a prompt's weight from 1/p, for success rates from 0.05 on."""
    return largest([_maxrl(rate, size) * rate - 1 for rate in _RATES if rate >= 0.05])


register(
    ExactClaim(
        id="engines/maxrl-weighs-one-over-p",
        paper=PAPER,
        judges=("Q15",),
        title="A prompt weighs one over its success rate",
        source=SOURCE,
        statement="With groups of 16 a prompt of success rate 0.05 or more weighs 1/p to within ten percent.",
        scope="Exact, in float64, by enumeration. The weight is (1 - (1-p)^{G-1})/p: at p = 0.05 and G = 16 a little "
        "over half of 1/p, so that the hardest prompts get far less than the likelihood would give them.",
        unit="share of 1/p",
        measure=lambda: _from_inverse(16),
        tolerance=0.1,
        falsifier=Falsifier("Groups of two.", measure=lambda: _from_inverse(2)),
        recorded="refuted",
        notes=("It takes groups of 47 for ten percent at p = 0.05.",),
    )
)
