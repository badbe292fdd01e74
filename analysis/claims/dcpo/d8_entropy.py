"""D8. Where the entropy lies, and how smooth it is."""

from __future__ import annotations

from analysis.claims.dcpo import CITATION, DCPO, GRPO, PAPER
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, contrast, difference, final, in_order, roughness
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="D8",
        source=PAPER,
        statement="Entropy collapses under GRPO, is high and noisy under DAPO, and lies in between and smoother under "
        "DCPO.",
        status="toy",
    )
)

THREE_ARMS = {"grpo": {"objective": GRPO}, "dcpo": {"objective": DCPO}, "dapo": {"objective": "dapo"}}

register(
    StatisticalClaim(
        id="dcpo/entropy-between",
        paper=PAPER,
        judges=("D8",),
        title="Entropy between GRPO's and DAPO's",
        source=f"{CITATION}, statement D8",
        statement="At equal reward DCPO's entropy lies above GRPO's and below DAPO's, by at least a tenth of a nat "
        "each.",
        scope="Tabular policy on modular sum, learning rate 16; entropy of a response where the exact return first "
        "reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms=THREE_ARMS,
        estimand=in_order(at_matched("exact/entropy", "exact/return", 0.9), ("grpo", "dcpo", "dapo")),
        direction="greater",
        statistic="smallest step",
        threshold=0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="dcpo", minus="grpo")),
        controls=(
            difference(AT_DIVERGENCE, of="dcpo", minus="grpo"),
            difference(AT_DIVERGENCE, of="dapo", minus="dcpo"),
        ),
        acts=(("grpo", "clip/fraction"),),
        falsifier=Falsifier(
            "The first and the last of the three are exchanged.",
            {"grpo": {"objective": "dapo"}, "dapo": {"objective": GRPO}},
        ),
        recorded="refuted",
        notes=(
            "DCPO widens both bounds for rare tokens: the upper one restores updates that raise entropy, the lower one "
            "updates that lower it. Which wins depends on the step: at this learning rate DCPO is below both, at 64 "
            "above both, and from a peaked start above both as well.",
        ),
        seeds=512,
        tier="full",
    )
)

register(
    StatisticalClaim(
        id="dcpo/smoother-entropy",
        paper=PAPER,
        judges=("D8",),
        title="Entropy smoother than DAPO's",
        source=f"{CITATION}, statement D8",
        statement="DCPO's entropy curve is at least a tenth less rough than DAPO's.",
        scope="Tabular policy on modular sum, learning rate 16 for both. Roughness is the standard deviation of the "
        "curve's second difference, which a steady decline does not have.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"dcpo": {"objective": DCPO}, "dapo": {"objective": "dapo"}},
        estimand=contrast(roughness("exact/entropy"), of="dcpo", minus="dapo", times=0.9),
        direction="less",
        threshold=0.0,
        planted=-0.01,
        null=Null(NULL_REWARD, contrast(roughness("exact/entropy"), of="dcpo", minus="dapo", times=0.9)),
        acts=(("dapo", "clip/fraction"),),
        curves=("exact/entropy", "exact/kl_step"),
        falsifier=Falsifier(
            "DCPO is given no bounds at all.",
            {"dcpo": {"objective": "dcpo(reduction=token_mean,clip_low=1e6,clip_high=1e6,ratio_max=1e6)"}},
        ),
        recorded="refuted",
        notes=(
            "DCPO moves further per rollout at the same learning rate, and a larger step is rougher; divided by the "
            "root of the divergence per rollout its curve is still the rougher one.",
        ),
        seeds=112,
    )
)
