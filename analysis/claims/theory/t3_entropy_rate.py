"""T3. The rate of the entropy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.claims.theory import PAPER, exact_statement
from analysis.judging.claim import register
from analysis.judging.estimands import Estimand, within
from analysis.judging.on_record import TRAINED, OnRecord
from analysis.ledger.entry import Entry, file_entry
from analysis.theory import entropy_dynamics
from analysis.trajectories import Trajectories

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


def _agreement(reverse: bool) -> Estimand:
    """1 where the entropy moved to the predicted side by the next rollout, 0 where it did not."""

    def compute(runs: Mapping[str, Trajectories]) -> np.ndarray:
        run = runs["trained"]
        predicted, changes = np.nansum(run["entropy/predicted"], axis=0), run["entropy/change"][0]
        followed = ~np.isnan(changes)
        predicted = predicted[followed][::-1] if reverse else predicted[followed]
        return (np.sign(predicted - np.median(predicted)) == np.sign(changes[followed] - np.median(changes[followed]))
                ).astype(np.float64)  # fmt: skip

    paired = "the rollout at the other end of the run" if reverse else "the same rollout"
    described = f"whether predicted and measured change of entropy lie on one side of their medians, of {paired}"
    return within(Estimand(described, compute, frozenset({"trained"})), 0.0, 1.0)


ON_RECORD = OnRecord(
    arms={"trained": TRAINED},
    estimand=_agreement(reverse=False),
    sabotaged_estimand=_agreement(reverse=True),
    statement="In more than half of the rollouts the entropy moved as the gated covariance of the recorded tokens "
    "predicts: predicted and measured change lie on one side of their medians. Exact for a table, an approximation for "
    "shared parameters.",
    sabotage="Each prediction is compared with the change of another rollout, from the other end of the run.",
    unit="share of rollouts",
    direction="greater",
    threshold=0.5,
    reads=("entropies", "kappas"),
)

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
        on_record=ON_RECORD,
    )
)
