"""T8. DCPO's bounds."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.dcpo_bounds import lower_bound, upper_bound

file_entry(
    Entry(
        number="T8",
        source=PAPER,
        statement="Identities of DCPO's bounds, its cap, and the probability above which nothing can be clipped.",
        status="exact",
    )
)


def _swapped_offsets() -> float:
    old = np.geomspace(1e-3, 1.0, 20)
    swapped = np.stack([lower_bound(old, 0.2), upper_bound(old, 0.16)])
    return float(np.abs(swapped - np.stack([lower_bound(old), upper_bound(old)])).max() / 1e-12)


register(
    exact_statement(
        "dcpo-bounds",
        number="T8",
        title="DCPO's bounds",
        source="DCPO, arXiv 2509.02333v2, eq. 4 and 27, and statement D9",
        statement="The bounds solve r(r-1)q = ε_high up to the cap and r(1-r)q = ε_low down to one half; a "
        "token with q > 1/1.2 can never be clipped from above.",
        sabotage="The two offsets are swapped.",
        measure=_swapped_offsets,
        also=("D9",),
    )
)
