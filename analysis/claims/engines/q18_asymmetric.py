"""Q18. A baseline off the mean, off policy."""

from __future__ import annotations

from analysis.claims.engines import PAPER
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q18",
        source=PAPER,
        statement="AsymRE: off policy a baseline below the behaviour policy's value guarantees improvement and keeps "
        "the support; at or above it the support collapses, in a transition.",
        status="toy",
    )
)

BANDIT = MODULAR_SUM | {"env": "MultiCorrectBandit-v1", "staleness": 16, "steps": 100}
BELOW = {"objective": "reinforce", "advantage": "asymmetric(shift=-0.1)"}
ABOVE = {"objective": "reinforce", "advantage": "asymmetric(shift=0.1)"}
SCOPE = (
    "MultiCorrectBandit-v1, tabular policy, plain reinforcement of the log-probability on rollouts 16 iterations old, "
    "learning rate 16, 100 of them."
)
SOURCE = "AsymRE, arXiv 2506.20520, abstract; estimator of Trinity-RFT 0.6"

register(
    StatisticalClaim(
        id="engines/low-baseline-keeps-support",
        paper=PAPER,
        judges=("Q18",),
        title="A baseline below the mean keeps the support",
        source=SOURCE,
        statement="A baseline 0.1 below the group mean ends with at least 0.1 nats more entropy than one 0.1 above it.",
        scope=SCOPE,
        unit="nats",
        setting=BANDIT,
        arms={"below": BELOW, "above": ABOVE},
        estimand=difference(final("exact/entropy"), of="below", minus="above"),
        direction="greater",
        threshold=0.1,
        null=Null(
            BANDIT | {"env": "NullBandit-v1"},
            difference(final("exact/entropy"), of="below", minus="above"),
        ),
        falsifier=Falsifier("The two baselines are exchanged.", {"below": ABOVE, "above": BELOW}),
        recorded="reproduced",
        seeds=24,
    )
)

register(
    StatisticalClaim(
        id="engines/low-baseline-gains-reward",
        paper=PAPER,
        judges=("Q18",),
        title="A baseline below the mean ends with more reward",
        source=SOURCE,
        statement="A baseline 0.1 below the group mean ends with at least 0.05 more reward than one 0.1 above it.",
        scope=SCOPE,
        unit="reward",
        setting=BANDIT,
        arms={"below": BELOW, "above": ABOVE},
        estimand=difference(final("exact/return"), of="below", minus="above"),
        direction="greater",
        threshold=0.05,
        falsifier=Falsifier("The two baselines are exchanged.", {"below": ABOVE, "above": BELOW}),
        recorded="refuted",
        seeds=24,
    )
)
