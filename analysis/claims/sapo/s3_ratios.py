"""S3. How far ratios spread."""

from __future__ import annotations

from analysis.claims.sapo import CITATION, PAPER, SAPO, SHARED, SHARED_SCOPE
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, value_of
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="S3",
        source=PAPER,
        statement="Ratios concentrate at 1 and log-ratios disperse by less than 0.02 within a response, more in a "
        "mixture of experts than in a dense model, so that SAPO's gate is a gate on the sequence to within 0.005.",
        status="small",
        reason="The bound on the gate is exact, the size of the dispersion a matter of the step. That experts widen it "
        "is judged within one model, by replaying their choice; a dense and a mixed model of the same width do not "
        "move equally far at one learning rate.",
    )
)

register(
    StatisticalClaim(
        id="sapo/ratios-stay-close",
        paper=PAPER,
        judges=("S3",),
        title="Log-ratios disperse little",
        source=f"{CITATION}, statement S3",
        statement="During training the mean squared log-ratio of a token, which bounds the mean dispersion within a "
        "response, stays below 0.02.",
        scope=f"{SHARED_SCOPE} Learning rate 0.05, where PPO's clip would act on about one token in a hundred. It is "
        "read off the k3 estimate of the divergence, which is half of it to second order. How far ratios spread is a "
        "matter of the step: at a rate sixteen times larger the bound does not hold.",
        unit="nats per token",
        setting=SHARED | {"learning_rate": 0.05},
        arms={"sapo": SAPO},
        estimand=value_of(average("kl/old_k3"), "sapo"),
        direction="less",
        threshold=0.01,
        planted=0.005,
        curves=("kl/old_k3", "ratio/max"),
        falsifier=Falsifier("The learning rate is sixteen times larger.", {"sapo": SAPO | {"learning_rate": 0.8}}),
        recorded="reproduced",
        tier="networks",
    )
)
