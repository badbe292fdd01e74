"""D4. How many responses carry a gradient."""

from __future__ import annotations

from analysis.claims.dcpo import CITATION, DCPO, GRPO, PAPER
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, difference
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="D4",
        source=PAPER,
        statement="Response utilisation over 400 steps rises from 43.8 % under GRPO to 71.8 % under DCPO, mean of four "
        "model sizes.",
        status="toy",
        reason="The size of the gain follows from the spread of success rates and the number of visits (T11).",
    )
)

register(
    StatisticalClaim(
        id="dcpo/response-utilisation",
        paper=PAPER,
        judges=("D4", "M14", "T11"),
        title="Smooth standardisation uses more responses",
        source=f"{CITATION}, statement D4",
        statement="Smooth advantage standardisation raises the share of responses with a non-zero advantage by at "
        "least ten percentage points over group standardisation.",
        scope="Ten visits to 64 prompts whose success rates follow Beta(½, ½), groups of 16. The share counts "
        "responses; it does not say that their advantages are informative.",
        unit="share of responses",
        setting={"env": "DifficultyMixture-v1", "steps": 10, "learning_rate": 16.0, "group_size": 16, "epochs": 4},
        arms={
            "dcpo": {"objective": DCPO},
            "grpo": {"objective": GRPO},
        },
        estimand=difference(average("advantage/nonzero_fraction"), of="dcpo", minus="grpo"),
        direction="greater",
        threshold=0.10,
        curves=("advantage/nonzero_fraction", "exact/regret"),
        falsifier=Falsifier(
            "The memory of earlier visits is removed: DCPO's objective with plain group standardisation.",
            {"dcpo": {"objective": DCPO, "advantage": "group_standardised"}},
        ),
        recorded="reproduced",
        notes=(
            "The paper reports 28 points over 400 steps of a language model. In theory (T11) the gain is a matter of "
            "counting and depends on the spread of success rates and the number of visits.",
        ),
    )
)
