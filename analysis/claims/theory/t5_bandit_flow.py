"""T5. The needle's flow and the replicator."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import bandit_flow

file_entry(
    Entry(
        number="T5",
        source=PAPER,
        statement="The needle's flow and regret, and the replicator, in closed form.",
        status="exact",
    )
)


def _wrong_gap() -> float:
    times = np.array([1.0, 10.0, 100.0])
    right, wrong = (bandit_flow.needle_gap(times, 10, gap, -2.0) for gap in (0.5, 0.4))
    return float(np.abs(right - wrong).max() / 1e-7)


register(
    exact_statement(
        "bandit-flow",
        number="T5",
        title="The needle's escape and the replicator",
        source="Derived in analysis.theory.bandit_flow (T5)",
        statement="The policy-gradient flow of the needle bandit, its regret and the natural-gradient flow "
        "follow their closed forms.",
        sabotage="The needle's advantage is 0.4 in one of the two and 0.5 in the other.",
        measure=_wrong_gap,
    )
)
