"""T2. The shipped gradients are the published ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from analysis.claims import ce_gppo
from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import ExactClaim, Falsifier, register
from analysis.judging.estimands import Estimand
from analysis.judging.on_record import OnRecord, TokenMeasure
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.gradient_weights import Tokens, autograd_update, random_tokens, token_update
from analysis.trajectories import Trajectories
from testbed.batch import TokenBatch
from testbed.objectives import Objective

file_entry(
    Entry(
        number="T2",
        source=PAPER,
        statement="The gradients of the shipped losses are the closed-form weights of the published equations.",
        status="exact",
    )
)


def _wrong_bound() -> float:
    tokens = random_tokens(0)
    return float(np.abs(token_update("ppo(clip_high=0.1)", tokens) - autograd_update("ppo", tokens)).max() / 1e-12)


def _deviation(published: str | None) -> TokenMeasure:
    """Largest difference between the loss's gradient and the closed form on recorded tokens, both in double precision.

    Args:
        published: the objective whose closed form is taken; `None`: the arm's own.
    """

    def measure(objective: Objective, batch: TokenBatch, _: Tensor) -> Tensor:
        found = []
        for number in range(len(batch.mask)):
            rows = batch.mask[number].any(-1)
            log_probs, old_log_probs, advantages = (
                value[number][rows].detach().double().numpy()
                for value in (batch.log_probs, batch.old_log_probs, batch.advantages)
            )
            mask = batch.mask[number][rows].numpy()
            # Entropies are read by none of the objectives of this claim.
            ones = np.ones_like(log_probs)
            tokens = Tokens(log_probs, old_log_probs, advantages, mask, entropies=ones, old_entropies=ones)
            shipped = autograd_update(objective, tokens)
            closed = token_update(objective if published is None else published, tokens)
            found.append(np.abs(shipped - closed).max() / max(np.abs(shipped).max(), 1e-300))
        return torch.tensor(found)

    return measure


def _worst(metric: str) -> Estimand:
    return Estimand(
        f"{metric}, the worst update of the objectives",
        lambda runs: np.nanmax(np.concatenate([run[metric] for run in runs.values()]), axis=0),
        frozenset(ARMS),
    )


def _of_ppo(runs: Mapping[str, Trajectories]) -> np.ndarray:
    return np.asarray(np.nanmax(runs["ppo"]["deviation from a narrower closed form"], axis=0))


ARMS = {name: name for name in ("ppo", "dapo", "dcpo", "ce_gppo", "sapo", "gspo", "cispo")}

ON_RECORD = OnRecord(
    arms=ARMS,
    estimand=_worst("deviation from the closed form"),
    sabotaged_estimand=Estimand("[ppo] deviation from a narrower closed form", _of_ppo, frozenset({"ppo"})),
    sabotage="PPO's closed form uses offsets of 0.01 while the loss uses 0.2.",
    unit="share of the largest gradient",
    tolerance=1e-12,
    measures={
        "deviation from the closed form": _deviation(None),
        "deviation from a narrower closed form": _deviation("ppo(clip_low=0.01,clip_high=0.01)"),
    },
)

register(
    exact_statement(
        "gradient-weights",
        number="T2",
        title="The shipped losses have the published gradients",
        source="The papers' equations (T2)",
        statement="The gradient of every shipped loss equals the closed-form weight of its published equation.",
        sabotage="PPO's closed form uses an upper offset of 0.1 while the loss uses 0.2.",
        measure=_wrong_bound,
        on_record=ON_RECORD,
    )
)


def _zero_betas_against_ppo(beta: float) -> float:
    tokens = random_tokens(1)
    restored = autograd_update(f"ce_gppo(beta1={beta},beta2={beta})", tokens)
    return float(abs(restored - autograd_update("ppo", tokens)).max())


register(
    ExactClaim(
        id="ce-gppo/zero-betas-are-ppo",
        paper=ce_gppo.PAPER,
        judges=("T2",),
        title="β₁ = β₂ = 0 has PPO's gradient",
        source=f"{ce_gppo.CITATION}, section 3.2",
        statement="With β₁ = β₂ = 0 the gradient of CE-GPPO is PPO's.",
        scope="Exact, in float64, on tokens of every sign and on both sides of both bounds. It is true of gradients "
        "only: the loss values differ, because a clipped token is worth 0 instead of a constant.",
        unit="loss per nat of log-probability",
        measure=lambda: _zero_betas_against_ppo(0.0),
        tolerance=1e-15,
        falsifier=Falsifier(
            "Both coefficients are 0.01 instead of 0.",
            measure=lambda: _zero_betas_against_ppo(0.01),
        ),
        recorded="reproduced",
    )
)
