"""T4. Which sampled tokens raise the entropy."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import entropy_dynamics

file_entry(
    Entry(
        number="T4",
        source=PAPER,
        statement="A threshold given by Lambert's function decides which sampled tokens raise the entropy.",
        status="exact",
    )
)


def _naive_threshold() -> float:
    """Tokens of a spread policy on which "surprisal above entropy" and the exact rule disagree."""
    logits = 2.0 * np.random.default_rng(0).normal(size=1000)
    policy = np.exp(logits) / np.exp(logits).sum()
    exact = entropy_dynamics.raises_entropy(logits, np.ones(logits.size))
    return float(((policy < entropy_dynamics.naive_threshold(logits)) != exact).sum())


register(
    exact_statement(
        "raising-threshold",
        number="T4",
        title="Which sampled tokens raise the entropy",
        source="Derived in analysis.theory.entropy_dynamics (T4)",
        statement="Sampled with a positive advantage, exactly the tokens below p* = exp(W(κ e^H) - H) raise the "
        "entropy, where W is Lambert's function.",
        sabotage="The rule quoted in papers, a surprisal above the entropy, takes the place of the threshold.",
        measure=_naive_threshold,
    )
)
