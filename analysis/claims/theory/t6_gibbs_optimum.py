"""T6. Regularised optima."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import gibbs

file_entry(
    Entry(
        number="T6",
        source=PAPER,
        statement="Dynamic programming finds the Gibbs optimum; for a right-or-wrong reward success and "
        "divergence are explicit.",
        status="exact",
    )
)


def _wrong_penalty() -> float:
    reference, rewards = np.log([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.5])
    right, wrong = (gibbs.gibbs_log_policy(reference, rewards, beta) for beta in (0.5, 0.55))
    return float(np.abs(right - wrong).max() / 1e-12)


register(
    exact_statement(
        "gibbs-optimum",
        number="T6",
        title="Regularised optima",
        source="Known for distributions; derived for automata in analysis.theory.gibbs (T6)",
        statement="Dynamic programming finds the Gibbs optimum over all responses, and for a right-or-wrong "
        "reward its success and divergence are the two Bernoulli closed forms.",
        sabotage="The optimum is computed at a penalty of 0.55 instead of 0.5.",
        measure=_wrong_penalty,
    )
)
