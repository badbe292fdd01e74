"""Q3. A wide one-sided range."""

from __future__ import annotations

from analysis.claims.engines import PAPER
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, difference
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q3",
        source=PAPER,
        statement="REC: a wide one-sided range of 0.6 and 2.0 trains faster than 0.2 and 0.2, without instability.",
        status="toy",
    )
)

WIDE = {"objective": 'rec(clip="one_side",weight="none",clip_low=0.6,clip_high=2.0)'}
NARROW = {"objective": 'rec(clip="one_side",weight="none")'}

register(
    StatisticalClaim(
        id="engines/rec-wide-range-is-faster",
        paper=PAPER,
        judges=("Q3",),
        title="A wide one-sided range trains faster",
        source="REC, arXiv 2509.24203; ranges of Trinity-RFT 0.6",
        statement="With offsets of 0.6 and 2.0 the mean regret is at least 0.1 below that with 0.2 and 0.2.",
        scope="Tabular policy on modular sum with 12 tokens, learning rate 16, rollouts eight iterations old. No toy "
        "run becomes unstable, so that speed is all that is judged.",
        unit="reward",
        setting=STALE,
        arms={"wide": WIDE, "narrow": NARROW},
        estimand=difference(average("exact/regret"), of="wide", minus="narrow"),
        direction="less",
        threshold=-0.1,
        acts=(("wide", "mask/fraction"),),
        curves=("exact/regret", "mask/fraction"),
        falsifier=Falsifier(
            "Only the upper offset of 0.6 is wide.",
            {"wide": {"objective": 'rec(clip="one_side",weight="none",clip_low=0.2,clip_high=0.2)'}},
        ),
        recorded="reproduced",
        tier="full",
        seeds=24,
    )
)
