"""T1. On-policy all objectives are one."""

from __future__ import annotations

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import random_tokens, token_update

file_entry(
    Entry(
        number="T1",
        source=PAPER,
        statement="At ratio 1 all objectives with a clip, a gate or a band have the same gradient.",
        status="exact",
    )
)


def _off_policy_weights() -> float:
    tokens = random_tokens(0)
    weights = np.abs(token_update("ppo", tokens) / np.where(tokens.advantages == 0, 1, tokens.advantages))
    inside = weights[weights > 0]
    return float(np.abs(inside / inside.max() - 1).max() / 1e-12)


register(
    exact_statement(
        "on-policy-identity",
        number="T1",
        title="On-policy, all clipped objectives are one",
        source="Follows from the objectives' equations (T1)",
        statement="At ratio 1 every objective with a clip, a gate or a band has the gradient weight 1, so they "
        "all take the same step.",
        sabotage="The weights are taken from a batch whose ratios differ from 1.",
        measure=_off_policy_weights,
    )
)
