"""X2. VESPO's report on BAPO, CISPO and TOPR."""

from __future__ import annotations

from analysis.claims.independent import PAPER
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import Measure, largest, value_of
from analysis.judging.settings import NULL_REWARD, STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="X2",
        source=PAPER,
        statement="VESPO, staleness 8: BAPO reaches 63.6 with an explosion of entropy after about 1100 steps, CISPO "
        "collapses at about 280 and ends at 48.7 like TOPR.",
        status="toy",
        configuration="On language models: `testbed finetune` with `objective: bapo`, `cispo` and `topr` and "
        "`trainer.steps_per_generation: 8`. Smallest honest version: 1500 steps of a 1.5B model on GSM8K, three seeds.",
        reason="Both happen late in a long training, which a table that has solved its task does not reach.",
    )
)


def _highest_rise(metric: str) -> Measure:
    highest = largest(metric)
    return Measure(f"{highest.description} - its initial value", lambda run: highest.read(run) - run[metric][0])


register(
    StatisticalClaim(
        id="independent/bapo-entropy-explodes",
        paper=PAPER,
        judges=("X2",),
        title="BAPO's entropy explodes under staleness",
        source="VESPO, arXiv 2602.10693v3, statement X2",
        statement="With rollouts of eight iterations ago BAPO's entropy rises at least half a nat above its start.",
        scope="Tabular policy on modular sum with twelve tokens, staleness 8, learning rate 16, 60 rollouts. The paper "
        "trained a mixture of experts for more than a thousand steps.",
        unit="nats per response",
        setting=STALE,
        arms={"bapo": {"objective": "bapo(reduction=token_mean)"}, "ppo": {"objective": "ppo"}},
        estimand=value_of(_highest_rise("exact/entropy"), "bapo"),
        direction="greater",
        threshold=0.5,
        null=Null(NULL_REWARD | {"staleness": 8}, value_of(_highest_rise("exact/entropy"), "bapo")),
        acts=(("bapo", "band/outside_fraction"),),
        falsifier=Falsifier("BAPO is replaced by PPO with fixed bounds.", {"bapo": {"objective": "ppo"}}),
        recorded="refuted",
        tier="full",
        notes=("A table has no parameter that noise on one prompt could spread from to the others.",),
    )
)
