"""E1. Scores over benchmarks, as reward and regret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.claims.erc import (
    ACTS,
    ARMS,
    CITATION,
    FINETUNE,
    NO_BAND,
    PAPER,
    PEAKED,
    PEAKED_SCOPE,
    SAME_MOVEMENT,
    SAME_MOVEMENT_SCOPE,
    UNMASKED,
    Arms,
)
from analysis.judging.claim import Falsifier, StatisticalClaim, Tuning, register
from analysis.judging.estimands import at_matched, average, difference
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from analysis.statistics import Verdict

file_entry(
    Entry(
        number="E1",
        source=PAPER,
        statement="ERC on DAPO raises the average over benchmarks from 53.4 to 55.1 (1.5B) and from 65.3 to 66.2 (7B).",
        status="llm",
        configuration=FINETUNE.format(erc="erc", base="dapo"),
        reason="The claims judge the counterpart that has a ground truth: regret, and reward for a given divergence.",
    )
)


def _more_reward_for_the_same_divergence(
    name: str, *, title: str, moving: Mapping[str, Any], scope: str, recorded: Verdict
) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"erc/{name}",
        paper=PAPER,
        judges=("E1",),
        title=title,
        source=f"{CITATION}, statement E1, at matched divergence instead of benchmark scores",
        statement="Where the cumulative divergence reaches 0.05 nats, ERC's exact return is at least 0.05 "
        "above DAPO's.",
        scope=f"{scope}. Divergence summed over iterations, exact, of whole responses.",
        unit="reward",
        setting=PEAKED,
        arms=ARMS | {"erc": {**ARMS["erc"], **moving}},
        estimand=difference(at_matched("exact/return", "exact/kl_cumulative", 0.05), of="erc", minus="dapo"),
        direction="greater",
        threshold=0.05,
        acts=ACTS,
        curves=("exact/return", "exact/kl_cumulative"),
        falsifier=Falsifier(NO_BAND.description, {"erc": {"objective": UNMASKED, **moving}}),
        recorded=recorded,
        notes=(
            "Many small steps to a point cost less summed divergence than few large ones, whatever the objective: "
            "at the same movement per rollout nothing is left of the gain.",
            "The matched level was lowered from 0.1 to 0.05 nats after a seed of an earlier judging run never "
            "reached 0.1; the master seeds of the record are later ones, with which nothing was chosen.",
        ),
    )


register(
    _more_reward_for_the_same_divergence(
        "reward-at-matched-divergence",
        title="More reward for the same divergence",
        moving={},
        scope=f"{PEAKED_SCOPE}, learning rate 16 for both",
        recorded="reproduced",
    )
)
register(
    _more_reward_for_the_same_divergence(
        "reward-at-matched-divergence-same-movement",
        title="More reward for the same divergence, at the same movement",
        moving=SAME_MOVEMENT,
        scope=SAME_MOVEMENT_SCOPE.rstrip("."),
        recorded="refuted",
    )
)


def less_regret(
    name: str, *, number: str, base: str, arms: Arms, falsifier: Falsifier, recorded: Verdict
) -> StatisticalClaim:
    """Less regret than its base alone, learning rates tuned."""
    return StatisticalClaim(
        id=f"erc/{name}",
        paper=PAPER,
        judges=(number,),
        title=f"More reward than {base.upper()} alone, learning rates tuned",
        source=f"{CITATION}, statement {number}, regret instead of benchmark scores",
        statement=f"ERC's mean regret over training is at least 0.02 below that of {base.upper()} alone.",
        scope="RareArm-v1: 16 contexts, 100 arms, the best arm with initial probability 0.01, tabular policy; "
        "learning rate of each arm chosen from one grid.",
        unit="reward",
        setting=MODULAR_SUM | {"env": "RareArm-v1", "steps": 100},
        arms=arms,
        estimand=difference(average("exact/regret"), of="erc", minus=base),
        direction="less",
        threshold=-0.02,
        tuning=Tuning((16.0, 32.0, 64.0, 128.0, 256.0), average("exact/regret"), better="lower"),
        acts=ACTS,
        curves=("exact/regret", "exact/entropy"),
        falsifier=falsifier,
        tier="full",
        seeds=272,
        recorded=recorded,
        notes=(
            "The paper's gains are one to two points of benchmark scores on language models, where parameters are "
            "shared and the clip acts on one token in five thousand.",
        ),
    )


register(less_regret("regret-tuned", number="E1", base="dapo", arms=ARMS, falsifier=NO_BAND, recorded="refuted"))
