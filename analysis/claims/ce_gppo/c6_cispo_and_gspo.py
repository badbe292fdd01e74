"""C6. CISPO and GSPO beside it."""

from __future__ import annotations

from analysis.claims.ce_gppo import CITATION, PAPER, PPO, SMALLEST
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import drawdown, exceeds, value_of
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="C6",
        source=PAPER,
        statement="CISPO collapses late (average 47.6) and GSPO, clipping about 15 % of the tokens, reaches 54.3 "
        "against CE-GPPO's 54.9.",
        status="toy",
        configuration="On language models: `testbed finetune` with `objective: cispo(clip_low=0.2)` against `ce_gppo`, "
        f"1,000 steps. {SMALLEST}",
        reason="A table does not collapse; the score of GSPO needs a language model.",
    )
)

register(
    StatisticalClaim(
        id="ce-gppo/cispo-collapses-late",
        paper=PAPER,
        judges=("C6", "X2"),
        title="CISPO collapses late in training",
        source=f"{CITATION}, statement C6",
        statement="In more than half of the runs CISPO with a weight between 0.8 and 1.2 falls by at least 0.05 below "
        "its best reward before training ends.",
        scope="Tabular policy on modular sum, learning rate 64, 100 iterations, long past convergence.",
        unit="share of seeds",
        setting=MODULAR_SUM | {"learning_rate": 64.0, "steps": 100},
        arms={"cispo": {"objective": "cispo(clip_low=0.2)"}},
        estimand=value_of(exceeds(drawdown("exact/return"), 0.05), "cispo"),
        statistic="proportion",
        direction="greater",
        threshold=0.5,
        planted=1.0,
        acts=(("cispo", "band/outside_fraction"),),
        curves=("exact/return", "exact/entropy"),
        seeds=20,
        falsifier=Falsifier("PPO takes CISPO's place.", {"cispo": PPO}),
        recorded="refuted",
        notes=(
            "A table converges and stays; rollouts eight iterations old and 300 iterations at learning rate 16 did "
            "not make it fall either. What collapses in a language model is shared parameters, which a table lacks.",
        ),
    )
)
