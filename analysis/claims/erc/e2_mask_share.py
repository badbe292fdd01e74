"""E2. How many tokens are masked."""

from __future__ import annotations

from analysis.claims.erc import ACTS, ARMS, CITATION, NO_BAND, PAPER, PEAKED, UNMASKED
from analysis.judging.claim import StatisticalClaim, register
from analysis.judging.estimands import Estimand, average
from analysis.judging.on_record import OnRecord
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="E2",
        source=PAPER,
        statement="ERC masks 20.29 % of the tokens where the ratio clip acts on about 0.02 %.",
        status="toy",
        reason="The two shares depend on the entropies of the states and on the size of the updates; their gap is what "
        "is judged.",
    )
)


def _mask_share_over_clip_share(times: float) -> Estimand:
    masked, clipped = average("erc/masked_fraction"), average("clip/fraction")
    return Estimand(
        f"[erc] {masked.description} - {times:g} × [dapo] {clipped.description}",
        lambda runs: masked.read(runs["erc"]) - times * clipped.read(runs["dapo"]),
        frozenset({"erc", "dapo"}),
        alike=False,
    )


register(
    StatisticalClaim(
        id="erc/mask-share",
        paper=PAPER,
        judges=("E2", "M6"),
        title="The entropy band masks far more than the clip",
        source=f"{CITATION}, statement E2",
        statement="ERC masks more than ten times as many tokens as the ratio clip of its base objective clips.",
        scope="Tabular policy on modular sum, every state starting with one token of probability 0.9; learning rate 4, "
        "where the clip acts on well under one token in a thousand, as in the paper.",
        unit="share of response tokens",
        setting=PEAKED | {"learning_rate": 4.0},
        arms=ARMS,
        estimand=_mask_share_over_clip_share(10.0),
        direction="greater",
        threshold=0.0,
        planted=0.04,
        acts=ACTS,
        curves=("erc/masked_fraction", "clip/fraction"),
        falsifier=NO_BAND,
        recorded="reproduced",
        on_record=OnRecord(arms={"erc": "erc", "dapo": "dapo"}, sabotaged={"erc": UNMASKED}, acts=ACTS),
        notes=(
            "The paper reports 20.29 % masked against about 0.02 % clipped; theory predicts the gap without a model.",
        ),
    )
)
