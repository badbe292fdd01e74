"""T3. The rate of the entropy."""

from __future__ import annotations

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import entropy_dynamics

file_entry(
    Entry(
        number="T3",
        source=PAPER,
        statement="Entropy moves at the rate -Cov(π(log π + H), X·A) for every gate X; a finite step departs in "
        "first order.",
        status="exact",
    )
)


def _ungated_rate() -> float:
    state = entropy_dynamics.random_state(0)
    ungated = float(entropy_dynamics.entropy_rate(state.logits, state.advantages))
    gated = float(entropy_dynamics.entropy_rate(state.logits, entropy_dynamics.gated_advantages("ppo", state)))
    return abs(ungated - gated) / 1e-14


register(
    exact_statement(
        "entropy-rate",
        number="T3",
        title="Entropy moves at the rate of a gated covariance",
        source="Entropy mechanism, arXiv 2505.22617, generalised to gated objectives (T3)",
        statement="Every gated objective moves the entropy of a softmax policy at the rate -Cov(π(log π + H), "
        "X·A), and a finite step departs from it in first order.",
        sabotage="The gate X is left out.",
        measure=_ungated_rate,
    )
)
