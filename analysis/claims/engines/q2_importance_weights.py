"""Q2. Clipping, not importance weights."""

from __future__ import annotations

from analysis.claims.engines import PAPER
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q2",
        source=PAPER,
        statement="REC: what keeps GRPO stable off policy is clipping, not importance weights; one-sided clipping "
        "without weights tracks that with weights, and both survive where neither is used.",
        status="toy",
    )
)

SOURCE = "REC, arXiv 2509.24203, abstract; losses of Trinity-RFT 0.6"
SCOPE = (
    "Tabular policy on modular sum with 12 tokens, learning rate 16, rollouts eight iterations old, 60 of them, four "
    "passes each."
)
CLIPPED = {"objective": 'rec(clip="one_side",weight="none")'}

register(
    StatisticalClaim(
        id="engines/rec-needs-no-weights",
        paper=PAPER,
        judges=("Q2",),
        title="One-sided clipping needs no importance weights",
        source=SOURCE,
        statement="Without importance weights the final return under one-sided clipping is within 0.05 of that with "
        "them.",
        scope=SCOPE,
        unit="reward",
        setting=STALE,
        arms={"without": CLIPPED, "with": {"objective": 'rec(clip="one_side",weight="ratio")'}},
        estimand=difference(final("exact/return"), of="without", minus="with"),
        direction="equivalent",
        threshold=0.05,
        planted=0.0,
        acts=(("without", "mask/fraction"),),
        curves=("exact/regret", "mask/fraction"),
        falsifier=Falsifier(
            "The arm without weights learns at a quarter of the rate.", {"without": CLIPPED | {"learning_rate": 4.0}}
        ),
        recorded="reproduced",
        tier="full",
        seeds=24,
    )
)

register(
    StatisticalClaim(
        id="engines/rec-survives-by-clipping",
        paper=PAPER,
        judges=("Q2",),
        title="Clipping is what survives staleness",
        source=SOURCE,
        statement="With neither clip nor weights the final return is at least 0.05 below that of one-sided clipping.",
        scope=SCOPE,
        unit="reward",
        setting=STALE,
        arms={"neither": {"objective": 'rec(clip="none",weight="none")'}, "clipped": CLIPPED},
        estimand=difference(final("exact/return"), of="neither", minus="clipped"),
        direction="less",
        threshold=-0.05,
        acts=(("clipped", "mask/fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier("The clip is not left out after all.", {"neither": CLIPPED}),
        recorded="refuted",
        notes=("States of a table do not interfere: what the clip costs here is speed, and nothing collapses.",),
        tier="full",
        seeds=24,
    )
)
