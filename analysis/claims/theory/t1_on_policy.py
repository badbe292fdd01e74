"""T1. On-policy all objectives are one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.judging.estimands import Estimand
from analysis.judging.on_record import OnRecord, TokenMeasure
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import random_tokens, token_update
from analysis.trajectories import Trajectories
from testbed.batch import TokenBatch

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


def _deviation(on_policy: bool) -> TokenMeasure:
    """Largest |(-∂ℓ/∂log p) - A| over the largest |A| of updates whose ratios are all 1, or of the others."""

    def measure(_: object, batch: TokenBatch, slopes: Tensor) -> Tensor:
        moved = ((batch.log_probs.detach() - batch.old_log_probs) != 0).where(batch.mask, False).any(-1).any(-1)
        size = batch.advantages.abs().where(batch.mask, 0).amax((-2, -1))
        found = (slopes + batch.advantages).abs().where(batch.mask, 0).amax((-2, -1)) / size
        return torch.where(moved != on_policy, found, torch.nan)

    return measure


def _worst(metric: str) -> Estimand:
    def compute(runs: Mapping[str, Trajectories]) -> np.ndarray:
        values = np.stack([run[metric] for run in runs.values()]).reshape(-1, next(iter(runs.values())).seeds)
        empty = np.isnan(values).all(0)
        return np.where(empty, np.nan, np.nanmax(np.where(empty, 0.0, values), axis=0))

    return Estimand(f"{metric}, the worst of the objectives", compute, frozenset(CLIPPED))


CLIPPED = {name: name for name in ("ppo", "dapo", "dcpo", "ce_gppo", "gspo", "sapo", "bapo")}

ON_RECORD = OnRecord(
    arms=CLIPPED,
    estimand=_worst("deviation of the weight from A at ratio 1"),
    sabotaged_estimand=_worst("deviation of the weight from A elsewhere"),
    sabotage="The weights are taken from the updates whose ratios differ from 1.",
    unit="share of the largest advantage",
    tolerance=1e-5,
    measures={
        "deviation of the weight from A at ratio 1": _deviation(on_policy=True),
        "deviation of the weight from A elsewhere": _deviation(on_policy=False),
    },
)

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
        on_record=ON_RECORD,
    )
)
