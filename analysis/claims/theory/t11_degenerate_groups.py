"""T11. Groups without contrast."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import degenerate_groups

file_entry(
    Entry(
        number="T11",
        source=PAPER,
        statement="Shares of groups without contrast, with and without smooth standardisation, and the cost of "
        "resampling.",
        status="exact",
    )
)


def _forgotten_visits() -> float:
    success = np.array([0.01, 0.2, 0.5])
    shares = [degenerate_groups.mixed_share(success, 4, visits) for visits in (1, 3)]
    return float(np.abs(shares[0] - shares[1]).max() / 1e-12)


register(
    exact_statement(
        "degenerate-groups",
        number="T11",
        title="How many groups carry a gradient",
        source="Counting, for DCPO, arXiv 2509.02333v2, and DAPO, arXiv 2503.14476v2 (T11)",
        statement="The share of groups with a non-zero advantage is 1 - pⁿ - (1-p)ⁿ with n = iG at the i-th "
        "visit, its mean over a Beta pool is a ratio of Beta functions, and resampling costs its "
        "reciprocal.",
        sabotage="Earlier visits are forgotten.",
        measure=_forgotten_visits,
    )
)
