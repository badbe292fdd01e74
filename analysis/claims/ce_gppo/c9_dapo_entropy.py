"""C9. DAPO's entropy rises early."""

from __future__ import annotations

from analysis.claims.ce_gppo import CITATION, PAPER, PPO
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import rise, value_of
from analysis.judging.settings import MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="C9",
        source=PAPER,
        statement="DAPO's entropy rises early and rebounds after about step 300.",
        status="toy",
        reason="The rebound is not judged: it is one feature of one curve.",
    )
)

register(
    StatisticalClaim(
        id="ce-gppo/dapo-entropy-rises-first",
        paper=PAPER,
        judges=("C9",),
        title="DAPO's entropy first rises",
        source=f"{CITATION}, statement C9",
        statement="Under DAPO the entropy of a response rises by at least 0.1 nats above its start.",
        scope="Tabular policy on modular sum starting with one token of probability 0.9 in every state, learning rate "
        "16, 60 iterations. Started from spread states it never rises, and that is the falsifier.",
        unit="nats per response",
        setting=MODULAR_SUM | {"env": "ModularSum-v1(initial=peaked)"},
        arms={"dapo": {"objective": "dapo"}, "ppo": PPO},
        estimand=value_of(rise("exact/entropy"), "dapo"),
        direction="greater",
        threshold=0.1,
        null=Null(NULL_REWARD | {"env": "NullBandit-v1(initial=peaked)"}, value_of(rise("exact/entropy"), "dapo")),
        acts=(("dapo", "clip/fraction"),),
        curves=("exact/entropy", "exact/return"),
        falsifier=Falsifier(
            "The starting policy is spread instead of peaked.", {"dapo": {"objective": "dapo", "env": "ModularSum-v1"}}
        ),
        recorded="reproduced",
        notes=(
            "PPO's entropy, drawn beside it, rises about as much: it is the peaked start and not the raised clip. The "
            "neutral drift of theory T12 predicts the sign in both cases. The later rebound is not judged.",
        ),
        seeds=272,
        tier="full",
    )
)
