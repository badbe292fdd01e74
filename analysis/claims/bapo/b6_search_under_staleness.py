"""B6. Whether the search moves, and what it does to entropy and reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.claims.bapo import (
    AT_90,
    CITATION,
    FINETUNE,
    LONG_SCOPE,
    LONGER_WHEN_WRONG,
    PAPER,
    PPO,
    SCOPE,
    SMALLEST,
    bapo,
)
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, Tuning, register
from analysis.judging.estimands import Measure, at_matched, average, difference, final, value_of, within
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from analysis.statistics import Verdict

file_entry(
    Entry(
        number="B6",
        source=PAPER,
        statement="At staleness 2 and 4 BAPO reaches 60.9/62.0 on AIME24 against 58.3/54.2 with fixed bounds and "
        "58.3/59.2 with a higher upper bound; on AIME25 44.2/43.3 against 39.4/40.2 and 39.7/40.2.",
        status="llm",
        configuration=f"{FINETUNE} Two and four passes over each rollout. {SMALLEST}",
        reason="The claims judge the mechanism: whether the search moves, and what it does to entropy and reward.",
    )
)

MATCHED = at_matched("exact/entropy", "exact/return", 0.9)

AT_LONG_DIVERGENCE = at_matched("exact/entropy", "exact/kl_cumulative", 0.35)


def _search_moves(
    name: str, *, title: str, setting: Mapping[str, Any], scope: str, recorded: Verdict, note: str, seeds: int
) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"bapo/{name}",
        paper=PAPER,
        judges=("B6", "M12"),
        title=title,
        source=f"{CITATION}, eq. 8, algorithm 1 and section 5.1",
        statement="At its published target of 0.4 BAPO raises its upper bound by at least 0.05 on average.",
        scope=scope,
        unit="ratio",
        setting=setting,
        arms={"bapo": bapo()},
        # The ends of the search's range.
        estimand=within(value_of(average("bapo/clip_high"), "bapo"), 1.2, 3.0),
        direction="greater",
        threshold=1.25,
        planted=1.4,
        curves=("bapo/clip_high", "bapo/clip_low", "bapo/positive_fraction"),
        falsifier=Falsifier("The target is 0, which every share reaches.", {"bapo": bapo(target=0.0)}),
        recorded=recorded,
        notes=(note,),
        tier="full",
        seeds=seeds,
    )


register(
    _search_moves(
        "search-moves-at-equal-lengths",
        title="The search moves the bounds at equal lengths",
        setting=MODULAR_SUM,
        scope=SCOPE,
        recorded="refuted",
        note="With responses of one length the share stays above 0.5 and the target of 0.4 never asks for anything: "
        "BAPO is PPO with bounds of 0.6 and 1.2.",
        seeds=256,
    )
)
register(
    _search_moves(
        "search-moves-when-wrong-is-longer",
        title="The search moves the bounds when wrong is longer",
        setting=LONGER_WHEN_WRONG,
        scope=LONG_SCOPE,
        recorded="reproduced",
        note="Here the share starts below the target.",
        seeds=20,
    )
)


def _keeps_more_entropy_than_ppo(
    name: str, *, title: str, setting: Mapping[str, Any], scope: str, at_divergence: Measure, recorded: Verdict
) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"bapo/{name}",
        paper=PAPER,
        judges=("B6", "M12"),
        title=title,
        source=f"{CITATION}, abstract: preserves the policy's entropy; mechanism M12",
        statement="At equal reward BAPO's entropy is at least 0.02 nats higher than PPO's.",
        scope=f"{scope} {AT_90}",
        unit="nats per response",
        setting=setting,
        arms={"bapo": bapo(), "ppo": PPO},
        estimand=difference(MATCHED, of="bapo", minus="ppo"),
        direction="greater",
        threshold=0.02,
        planted=0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="bapo", minus="ppo")),
        controls=(difference(at_divergence, of="bapo", minus="ppo"),),
        acts=(("ppo", "clip/fraction"),),
        falsifier=Falsifier(
            "The search is taken away: BAPO's bounds are fixed at PPO's own 0.8 and 1.2.",
            {"bapo": bapo(low_range="(0.8,0.8)", high_range="(1.2,1.2)")},
        ),
        recorded=recorded,
        notes=(
            "Where the search stands still what remains is its starting interval, whose lower bound of 0.6 lets "
            "more negative tokens through than PPO's 0.8: the very thing that statement B4 says hurts.",
        ),
        tier="full",
        seeds=480,
    )


register(
    _keeps_more_entropy_than_ppo(
        "entropy-against-ppo-at-equal-lengths",
        title="BAPO keeps more entropy than PPO at equal lengths",
        setting=MODULAR_SUM,
        scope=SCOPE,
        at_divergence=AT_DIVERGENCE,
        recorded="refuted",
    )
)
register(
    _keeps_more_entropy_than_ppo(
        "entropy-against-ppo-when-wrong-is-longer",
        title="BAPO keeps more entropy than PPO when wrong is longer",
        setting=LONGER_WHEN_WRONG | {"steps": 30},
        scope=LONG_SCOPE,
        at_divergence=AT_LONG_DIVERGENCE,
        recorded="reproduced",
    )
)

register(
    StatisticalClaim(
        id="bapo/entropy-against-its-starting-interval",
        paper=PAPER,
        judges=("B6", "M12"),
        title="The search keeps more entropy than the interval it starts from",
        source=f"{CITATION}, abstract; mechanism M12",
        statement="At equal reward BAPO's entropy is at least 0.02 nats higher than that of PPO with BAPO's starting "
        "bounds, 0.6 and 1.2.",
        scope=f"{LONG_SCOPE} {AT_90}",
        unit="nats per response",
        setting=LONGER_WHEN_WRONG | {"steps": 30},
        arms={"bapo": bapo(), "fixed": {"objective": "ppo(clip_low=0.4,clip_high=0.2)"}},
        estimand=difference(MATCHED, of="bapo", minus="fixed"),
        direction="greater",
        threshold=0.02,
        planted=0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="bapo", minus="fixed")),
        controls=(difference(AT_LONG_DIVERGENCE, of="bapo", minus="fixed"),),
        acts=(("fixed", "clip/fraction"),),
        falsifier=Falsifier("The target is 0, which every share reaches.", {"bapo": bapo(target=0.0)}),
        recorded="inconclusive",
        notes=(
            "The effect is two to three times the threshold, but so few standard errors above it that two of three "
            "master seeds leave it open.",
        ),
        tier="full",
        seeds=704,
    )
)

register(
    StatisticalClaim(
        id="bapo/reward-under-staleness",
        paper=PAPER,
        judges=("B6", "B1", "M10", "M12"),
        title="More reward than PPO on stale rollouts",
        source=f"{CITATION}, mechanism behind statement B6",
        statement="With rollouts four iterations old, each at its own best learning rate, BAPO's final reward exceeds "
        "PPO's by at least 0.005.",
        scope="Tabular policy on modular sum, 60 iterations, four passes over each rollout. The paper's staleness "
        "counts passes, and its scores are those of a benchmark.",
        unit="reward",
        setting=MODULAR_SUM | {"staleness": 4},
        arms={"bapo": bapo(), "ppo": PPO},
        estimand=difference(final("exact/return"), of="bapo", minus="ppo"),
        statistic="iqm",
        direction="greater",
        threshold=0.005,
        tuning=Tuning((16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0), final("exact/return")),
        acts=(("ppo", "clip/fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier(
            "BAPO's bounds are fixed at 0.98 and 1.02.",
            {"bapo": bapo(low_range="(0.98,0.98)", high_range="(1.02,1.02)")},
        ),
        recorded="refuted",
        notes=(
            "At one learning rate of 16 for both BAPO is ahead by 0.03; a learning rate of its own gives PPO nearly "
            "all of it back.",
        ),
        tier="full",
    )
)
