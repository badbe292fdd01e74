"""T9. SAPO's gate."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import sapo_gate

file_entry(
    Entry(
        number="T9",
        source=PAPER,
        statement="SAPO's gradient weight is r·sech²(τ(r-1)/2), within a variance bound of a gate on the sequence.",
        status="exact",
    )
)


def _wrong_temperature() -> float:
    ratios = np.linspace(0.5, 2.0, 7)
    return float(np.abs(sapo_gate.gate(ratios, 1.0) - sapo_gate.gate(ratios, 1.05)).max() / 1e-12)


register(
    exact_statement(
        "sapo-gate",
        number="T9",
        title="SAPO's gate and its sequence limit",
        source="SAPO, arXiv 2511.20347v2, eq. 5-9 and statement S3",
        statement="The gradient weight is r·sech²(τ(r-1)/2), and the mean token gate differs from the gate of "
        "the mean by at most (τ²/4)·Var of the log-ratios.",
        sabotage="The gate is evaluated at τ = 1.05 instead of 1.",
        measure=_wrong_temperature,
        also=("S3",),
    )
)
