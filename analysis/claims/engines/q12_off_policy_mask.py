"""Q12. Dropping negative responses that are far off policy."""

from __future__ import annotations

from analysis.claims.engines import PAPER, UNCLIPPED
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q12",
        source=PAPER,
        statement="Dropping only the negative responses that are far off policy stabilises runs that diverge "
        "otherwise; dropping positive ones is not needed.",
        status="toy",
        reason="No run on a table diverges; judged is the size of the policy's steps.",
    )
)

SETTING = STALE
MASKED = {"objective": "off_policy_mask(base=ppo(clip_low=1e9,clip_high=1e9),threshold=0.1)"}

register(
    StatisticalClaim(
        id="engines/off-policy-mask-steadies",
        paper=PAPER,
        judges=("Q12",),
        title="Dropping far negative responses makes steps smaller",
        source="DeepSeek-V3.2, arXiv 2512.02556, as TRL 1.16 and Trinity-RFT 0.6 have it",
        statement="Without a clip, dropping them halves the mean divergence per iteration.",
        scope="Tabular policy on modular sum with 12 tokens, learning rate 16, rollouts eight iterations old; δ = 0.1.",
        unit="nats per response",
        setting=SETTING,
        arms={"masked": MASKED, "unclipped": UNCLIPPED},
        estimand=contrast(average("exact/kl_step"), of="unclipped", minus="masked", times=2.0),
        direction="greater",
        threshold=0.0,
        planted=0.02,
        acts=(("masked", "mask/fraction"),),
        curves=("exact/kl_step", "exact/regret"),
        falsifier=Falsifier(
            "Nothing is dropped: δ = 100.", {"masked": {"objective": MASKED["objective"].replace("0.1", "100.0")}}
        ),
        recorded="refuted",
        tier="full",
        seeds=24,
    )
)
