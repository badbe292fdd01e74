"""B5. Which tokens leave the interval."""

from __future__ import annotations

from analysis.claims.bapo import CITATION, PAPER, SCOPE
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import average, between
from analysis.judging.on_record import OnRecord
from analysis.judging.settings import MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="B5",
        source=PAPER,
        statement="Tokens whose ratio is far from 1, on either side, have a low probability and a high entropy.",
        status="toy",
    )
)

OUTSIDE_OVER_INSIDE = between(average("band/outside_entropy"), average("band/inside_entropy"), arm="ppo", times=1.1)

# An entropy band that is never left: the base alone, with the entropies at hand.
OPEN_BAND = "beta_low=0.999,beta_high=1000.0"
PPO_WITH_ENTROPIES = f"erc(base=ppo,{OPEN_BAND})"
WHOLE_RESPONSES = f"erc(base=gspo(clip_low=0.05,clip_high=0.05,reduction=token_mean),{OPEN_BAND})"

register(
    StatisticalClaim(
        id="bapo/leaving-tokens-are-uncertain",
        paper=PAPER,
        judges=("B5",),
        title="Tokens that leave the interval were sampled where the entropy is high",
        source=f"{CITATION}, statement B5",
        statement="The states of tokens outside PPO's interval have a mean entropy at least a tenth above that of the "
        "others.",
        scope=f"{SCOPE} Rollouts eight iterations old; entropy of the policy that sampled. That such tokens are "
        "improbable as well is the claim ce-gppo/leaving-tokens-are-improbable.",
        unit="nats",
        setting=MODULAR_SUM | {"staleness": 8},
        arms={"ppo": {"objective": PPO_WITH_ENTROPIES}},
        estimand=OUTSIDE_OVER_INSIDE,
        direction="greater",
        threshold=0.0,
        planted=0.05,
        null=Null(NULL_REWARD | {"staleness": 8}, OUTSIDE_OVER_INSIDE),
        acts=(("ppo", "band/outside_fraction"),),
        curves=("band/outside_entropy", "band/inside_entropy"),
        falsifier=Falsifier(
            "The interval holds the ratio of the whole response, so that tokens leave with their neighbours.",
            {"ppo": {"objective": WHOLE_RESPONSES}},
        ),
        recorded="reproduced",
        on_record=OnRecord(
            arms={"ppo": PPO_WITH_ENTROPIES},
            sabotaged={"ppo": WHOLE_RESPONSES},
            acts=(("ppo", "band/outside_fraction"),),
        ),
    )
)
