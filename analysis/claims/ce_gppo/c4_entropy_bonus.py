"""C4. An entropy bonus is fragile."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analysis.claims.ce_gppo import CITATION, PAPER, PPO, SCOPE, SMALLEST
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import Estimand, difference, final
from analysis.judging.settings import MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from analysis.trajectories import Trajectories

file_entry(
    Entry(
        number="C4",
        source=PAPER,
        statement="An entropy bonus is fragile: a coefficient of 0.001 still collapses to about 0.06 nats, as GRPO "
        "without one does, and 0.003 explodes.",
        status="toy",
        configuration="On language models: `testbed finetune` with `objective: entropy_bonus(base=grpo,"
        f"coefficient=0.001)` and 0.003. {SMALLEST}",
        reason="The toy's vocabulary has 16 tokens; the explosion is that of a vocabulary of 150,000.",
    )
)

COEFFICIENTS = (0.01, 0.03, 0.1, 0.3, 1.0)


def _bonus(coefficient: float) -> dict[str, str]:
    return {"objective": f"entropy_bonus(base=ppo,coefficient={coefficient})"}


def _jump_over_loss() -> Estimand:
    names = [f"α = {coefficient:g}" for coefficient in COEFFICIENTS]

    def compute(runs: Mapping[str, Trajectories]) -> NDArray[np.float64]:
        entropies = np.stack([runs[name]["exact/entropy"][-1] for name in names])
        native = runs["no bonus"]["exact/entropy"]
        return np.diff(entropies, axis=0).max(0) - (native[0] - native[-1])

    return Estimand(
        "largest rise of the final exact/entropy from one coefficient to the next, minus the loss of [no bonus]",
        compute,
        frozenset({*names, "no bonus"}),
    )


register(
    StatisticalClaim(
        id="ce-gppo/entropy-bonus-is-fragile",
        paper=PAPER,
        judges=("C4",),
        title="An entropy bonus goes from collapse to explosion at once",
        source=f"{CITATION}, statement C4",
        statement="Somewhere a threefold coefficient turns collapse into explosion: it raises the final entropy by "
        "more than everything that training without a bonus loses.",
        scope=f"{SCOPE} Coefficients from 0.01 to 1 in threefold steps, of which the largest step counts.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={f"α = {coefficient:g}": _bonus(coefficient) for coefficient in COEFFICIENTS} | {"no bonus": PPO},
        estimand=_jump_over_loss(),
        direction="greater",
        threshold=0.0,
        planted=1.0,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="α = 0.1", minus="no bonus")),
        falsifier=Falsifier(
            "The coefficients are a tenth apart instead of threefold.",
            {f"α = {old:g}": _bonus(0.1 * 1.1**index) for index, old in enumerate(COEFFICIENTS)},
        ),
        recorded="refuted",
        notes=(
            "A tabular softmax has an entropy-regularised optimum for every coefficient, and it moves with the "
            "coefficient smoothly. The paper's explosion is that of a vocabulary of 150,000 tokens, where raising all "
            "improbable tokens a little is a large step.",
        ),
        tier="full",
        seeds=80,
    )
)
