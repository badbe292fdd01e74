"""M15. Ratios that leave the interval in a single pass."""

from __future__ import annotations

from analysis.claims.mechanisms import BASELINES, PAPER, PPO
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M15",
        source=PAPER,
        statement="With shared parameters ratios leave the interval in a single pass, without any reuse of responses.",
        status="small",
    )
)

register(
    StatisticalClaim(
        id="baselines/sharing-clips-without-reuse",
        paper=BASELINES,
        judges=("M15",),
        title="Shared parameters reach the clip in a single pass",
        source="Mechanism M15",
        statement="In one pass over fresh rollouts, no response used twice, a low-rank policy has more than ten times "
        "the clipped share of a table at the same learning rate.",
        scope="Modular sum, one pass in four mini-batches, learning rate 4, rank 4 with a step on a logit itself as "
        "large as the table's. The ratio leaves 1 through what other mini-batches did to the same parameters.",
        unit="share of response tokens",
        setting=MODULAR_SUM | {"epochs": 1, "minibatches": 4, "learning_rate": 4.0, "steps": 30},
        arms={"shared": PPO | {"model": "low_rank(rank=4)"}, "table": PPO},
        estimand=contrast(average("clip/fraction"), of="shared", minus="table", times=10.0),
        direction="greater",
        threshold=0.0,
        planted=0.01,
        acts=(("shared", "clip/fraction"),),
        curves=("clip/fraction", "exact/kl_step"),
        falsifier=Falsifier("The shared policy is replaced by the table.", {"shared": PPO}),
        recorded="reproduced",
    )
)
