"""M4. A higher upper bound."""

from __future__ import annotations

from analysis.claims.mechanisms import BASELINES, PAPER, PPO
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, difference, final
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M4",
        source=PAPER,
        statement="A higher upper bound keeps entropy at equal reward.",
        status="toy",
    )
)

CLIP_HIGHER = {"0.28": {"objective": "ppo(clip_high=0.28)"}, "0.2": PPO}

register(
    StatisticalClaim(
        id="baselines/clip-higher-keeps-entropy",
        paper=BASELINES,
        judges=("M4",),
        title="Clip-higher keeps entropy",
        source="DAPO, arXiv 2503.14476v2, section 3.1; mechanism M4",
        statement="Raising the upper offset from 0.2 to 0.28 keeps the entropy at equal reward at least 0.05 nats "
        "higher.",
        scope="Tabular policy on modular sum, learning rate 16; entropy of a response where the exact return first "
        "reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms=CLIP_HIGHER,
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.9), of="0.28", minus="0.2"),
        direction="greater",
        threshold=0.05,
        acts=(("0.2", "clip/high_fraction"),),
        seeds=1056,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="0.28", minus="0.2")),
        controls=(difference(AT_DIVERGENCE, of="0.28", minus="0.2"),),
        falsifier=Falsifier("The lower offset is raised instead.", {"0.28": {"objective": "ppo(clip_low=0.28)"}}),
        recorded="reproduced",
        tier="full",
    )
)
