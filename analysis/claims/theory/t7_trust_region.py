"""T7. What in-clip ratios bound."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import trust_region

file_entry(
    Entry(
        number="T7",
        source=PAPER,
        statement="The largest total variation under in-clip ratios of the sampled tokens is attained and never "
        "exceeded.",
        status="exact",
    )
)


def _sampled_mass_only() -> float:
    """Error of the clip bound as a bound on drift: ε_low, as if the sampled tokens were all there is."""
    old, sampled = np.array([0.5, 0.3, 0.2]), np.array([True, False, False])
    return abs(trust_region.unsampled_worst_case(old, sampled, 0.2).total_variation - 0.2) / 1e-9


register(
    exact_statement(
        "trust-region-drift",
        number="T7",
        title="Clipped ratios of the sampled tokens do not bound the drift",
        source="Derived in analysis.theory.trust_region (T7)",
        statement="With every sampled ratio inside its interval the total variation can reach M + ε_low·Q - "
        "q_min and no more, while a single tabular softmax step stays below εQ + M tanh(δ/4).",
        sabotage="The clip's own offset is taken for a bound on the total variation.",
        measure=_sampled_mass_only,
    )
)
