"""S1. Stability and reward against GSPO and GRPO."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.claims.sapo import (
    CITATION,
    CLOSED_GATE,
    EQUAL_BUDGET,
    GRPO,
    GSPO,
    PAPER,
    SAPO,
    SHARED,
    SHARED_BUDGET,
    SHARED_SCOPE,
)
from analysis.judging.claim import StatisticalClaim, register
from analysis.judging.estimands import Estimand, difference, final
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="S1",
        source=PAPER,
        statement="Qwen3-30B-A3B-Base from a cold start, four mini-batches a rollout: GSPO and GRPO with routing "
        "replay collapse early, SAPO stays stable for longer and ends higher on AIME25, HMMT25 and BeyondAIME.",
        status="small",
        configuration="On language models: `testbed finetune cpu-moe.yaml` with `objective: sapo`, `gspo` and `grpo`. "
        "Smallest honest version: a mixture of experts of about 1B active parameters on GSM8K for 1000 steps, five "
        "seeds, each objective's learning rate from one grid.",
        reason="None of the toy policies collapses, so what is judged is the reward reached, not the time to a "
        "collapse.",
    )
)

TUNED = StatisticalClaim(
    id="sapo/staleness-reward",
    paper=PAPER,
    judges=("S1", "M9"),
    title="Higher reward than GSPO on stale data, each at its best learning rate",
    source=f"{CITATION}, statement S1",
    statement="With rollouts eight iterations old, SAPO's final reward exceeds GSPO's by at least 0.05, "
    "each at its best learning rate.",
    scope="Tabular policy on modular sum with 12 tokens, 60 rollouts, GSPO at its published range, which clips "
    "most responses here at any rate.",
    unit="reward",
    setting=STALE,
    arms={"sapo": SAPO, "gspo": GSPO},
    estimand=difference(final("exact/return"), of="sapo", minus="gspo"),
    # At its best rate one seed in some dozens fails and all others are alike.
    statistic="iqm",
    direction="greater",
    threshold=0.05,
    tuning=EQUAL_BUDGET,
    acts=(("gspo", "clip/fraction"),),
    curves=("exact/regret", "exact/kl_step"),
    falsifier=CLOSED_GATE,
    recorded="refuted",
    tier="full",
    seeds=32,
    notes=(
        "GSPO's narrow range makes its steps small, and a larger learning rate makes up for that: the lead is "
        "one of the learning rate, not of the objective. An independent report (X1) finds the opposite order "
        "at a staleness of 32 and more with a language model.",
    ),
)
register(TUNED)
register(
    replace(
        TUNED,
        id="sapo/staleness-reward-equal-rate",
        judges=("S1",),
        title="Higher reward than GSPO on stale data, both at learning rate 16",
        statement="With rollouts eight iterations old, SAPO's final reward exceeds GSPO's by at least 0.05, "
        "both at learning rate 16.",
        statistic="mean",
        tuning=None,
        recorded="reproduced",
        tier="quick",
        seeds=56,
    )
)


def _leads(of: str, over: tuple[str, ...]) -> Estimand:
    """Cumulated, so that the statistic "smallest step" is the smallest of the leads."""
    measure = final("exact/return")
    return Estimand(
        f"lead of [{of}] over {' and over '.join(f'[{arm}]' for arm in over)}, of: {measure.description}",
        lambda runs: (
            np.cumsum(
                [np.zeros(runs[of].seeds)] + [measure.read(runs[of]) - measure.read(runs[arm]) for arm in over], axis=0
            ).T
        ),
        frozenset({of, *over}),
    )


register(
    StatisticalClaim(
        id="sapo/shared-parameters-reward",
        paper=PAPER,
        judges=("S1", "S5"),
        title="Higher reward than GSPO and GRPO with shared parameters",
        source=f"{CITATION}, statement S1",
        statement="With four mini-batches per rollout SAPO's final reward exceeds GSPO's and GRPO's by at least 0.05, "
        "each at its best learning rate.",
        scope=f"{SHARED_SCOPE} Fresh rollouts; every objective at its published settings.",
        unit="reward",
        setting=SHARED,
        arms={"sapo": SAPO, "gspo": GSPO, "grpo": GRPO},
        estimand=_leads("sapo", over=("gspo", "grpo")),
        statistic="smallest step",
        direction="greater",
        threshold=0.05,
        tuning=SHARED_BUDGET,
        acts=(("gspo", "clip/fraction"), ("grpo", "clip/fraction")),
        curves=("exact/regret", "exact/entropy", "exact/kl_step"),
        falsifier=CLOSED_GATE,
        recorded="inconclusive",
        tier="networks",
        seeds=64,
    )
)
