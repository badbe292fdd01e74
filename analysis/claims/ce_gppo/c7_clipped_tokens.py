"""C7. Which tokens are clipped."""

from __future__ import annotations

from analysis.claims.ce_gppo import CITATION, PAPER, PPO, SCOPE
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, between
from analysis.judging.on_record import OnRecord
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="C7",
        source=PAPER,
        statement="Clipped tokens are predominantly improbable ones; probable tokens stay inside the interval.",
        status="toy",
    )
)

WHOLE_RESPONSES = "gspo(clip_low=0.05,clip_high=0.05,reduction=token_mean)"

register(
    StatisticalClaim(
        id="ce-gppo/leaving-tokens-are-improbable",
        paper=PAPER,
        judges=("C7", "B5"),
        title="Tokens that leave the interval were improbable",
        source=f"{CITATION}, statement C7",
        statement="The tokens outside PPO's interval had less than half the mean probability of those inside.",
        scope=f"{SCOPE} Probability under the policy that sampled.",
        unit="probability",
        setting=MODULAR_SUM,
        arms={"ppo": PPO},
        estimand=between(average("band/outside_probability"), average("band/inside_probability"), arm="ppo", times=0.5),
        direction="less",
        threshold=0.0,
        planted=-0.05,
        acts=(("ppo", "band/outside_fraction"),),
        curves=("band/outside_probability", "band/inside_probability"),
        falsifier=Falsifier(
            "The interval holds the ratio of the whole response, so that tokens leave with their neighbours.",
            {"ppo": {"objective": WHOLE_RESPONSES}},
        ),
        recorded="reproduced",
        on_record=OnRecord(
            arms={"ppo": "ppo"}, sabotaged={"ppo": WHOLE_RESPONSES}, acts=(("ppo", "band/outside_fraction"),)
        ),
    )
)
