"""B2. What stale rollouts do to entropy, clip and gradient."""

from __future__ import annotations

from analysis.claims.bapo import CITATION, GRPO, PAPER, SCOPE
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, average, contrast, difference, final, largest
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="B2",
        source=PAPER,
        statement="The staler the rollouts, the faster GRPO's entropy falls, the more tokens are clipped and the more "
        "gradients blow up, until training collapses; on-policy it is stable.",
        status="toy",
        reason="Staleness is the age of a rollout in three of the claims and the passes over it, the paper's sense, in "
        "the fourth. Collapse needs shared parameters.",
    )
)

register(
    StatisticalClaim(
        id="bapo/staleness-clips-more",
        paper=PAPER,
        judges=("B2", "M10"),
        title="Stale rollouts clip more tokens",
        source=f"{CITATION}, statement B2",
        statement="With rollouts eight iterations old, GRPO clips more than twice the share of tokens it clips with "
        "fresh ones.",
        scope=SCOPE,
        unit="share of response tokens",
        setting=MODULAR_SUM,
        arms={"stale": {"objective": "grpo", "staleness": 8}, "fresh": {"objective": "grpo"}},
        estimand=contrast(average("clip/fraction"), of="stale", minus="fresh", times=2.0),
        direction="greater",
        threshold=0.0,
        planted=0.06,
        acts=(("fresh", "clip/fraction"),),
        curves=("clip/fraction", "exact/regret"),
        falsifier=Falsifier("The stale arm gets fresh rollouts.", {"stale": {"objective": "grpo"}}),
        recorded="reproduced",
    )
)

register(
    StatisticalClaim(
        id="bapo/staleness-lowers-entropy",
        paper=PAPER,
        judges=("B2", "M10"),
        title="Stale rollouts make the entropy fall faster",
        source=f"{CITATION}, statement B2",
        statement="With rollouts eight iterations old, GRPO's entropy at equal reward is at least 0.1 nats lower than "
        "with fresh ones.",
        scope=f"{SCOPE} Entropy of a response where the exact return first reaches 0.8, 120 iterations.",
        unit="nats per response",
        setting=MODULAR_SUM | {"steps": 120},
        arms={"stale": {"objective": "grpo", "staleness": 8}, "fresh": {"objective": "grpo"}},
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.8), of="stale", minus="fresh"),
        direction="less",
        threshold=-0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="stale", minus="fresh")),
        controls=(difference(AT_DIVERGENCE, of="stale", minus="fresh"),),
        acts=(("stale", "clip/fraction"),),
        falsifier=Falsifier("The stale arm gets fresh rollouts.", {"stale": {"objective": "grpo"}}),
        recorded="refuted",
        notes=(
            "At equal iterations the stale run also has the higher entropy, because it learns more slowly; matching "
            "the reward removes that and leaves the sign unchanged.",
        ),
        seeds=272,
        tier="full",
    )
)

register(
    StatisticalClaim(
        id="bapo/reuse-lowers-entropy",
        paper=PAPER,
        judges=("B2",),
        title="Reusing rollouts makes the entropy fall faster",
        source=f"{CITATION}, statement B2; staleness in the paper's own sense, passes over a rollout",
        statement="With eight passes over each rollout, GRPO's entropy at equal reward is at least 0.1 nats lower than "
        "with two.",
        scope="Tabular policy on modular sum, learning rate 16. Entropy of a response where the exact return first "
        "reaches 0.8.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"eight": GRPO | {"epochs": 8}, "two": GRPO | {"epochs": 2}},
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.8), of="eight", minus="two"),
        direction="less",
        threshold=-0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="eight", minus="two")),
        controls=(difference(at_matched("exact/entropy", "exact/kl_cumulative", 0.5), of="eight", minus="two"),),
        acts=(("eight", "clip/fraction"),),
        falsifier=Falsifier("The first arm makes two passes as well.", {"eight": GRPO | {"epochs": 2}}),
        recorded="inconclusive",
        notes=("The effect has the claimed sign, unlike that of old rollouts, and about the size of the threshold.",),
        seeds=272,
        tier="full",
    )
)

register(
    StatisticalClaim(
        id="bapo/staleness-gradients",
        paper=PAPER,
        judges=("B2", "M10"),
        title="Stale rollouts make the gradients blow up",
        source=f"{CITATION}, statement B2",
        statement="With rollouts eight iterations old, the largest gradient norm of GRPO's training is more than twice "
        "that with fresh ones.",
        scope=SCOPE,
        unit="gradient norm",
        setting=MODULAR_SUM,
        arms={"stale": GRPO | {"staleness": 8}, "fresh": GRPO},
        estimand=contrast(largest("gradient/norm_max"), of="stale", minus="fresh", times=2.0),
        direction="greater",
        threshold=0.0,
        planted=0.02,
        acts=(("stale", "clip/fraction"),),
        curves=("gradient/norm", "gradient/norm_max"),
        falsifier=Falsifier("The stale arm gets fresh rollouts.", {"stale": GRPO}),
        recorded="refuted",
        notes=(
            "Where A > 0 the clip bounds a token's weight; only a punished token whose ratio has grown goes beyond. "
            "The mean norm is a quarter larger with stale rollouts.",
        ),
    )
)
