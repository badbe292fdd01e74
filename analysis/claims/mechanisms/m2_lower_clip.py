"""M2. Without a lower clip, and with a tight one."""

from __future__ import annotations

from analysis.claims.mechanisms import BASELINES, PAPER, PPO
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import NULL_REWARD
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="M2",
        source=PAPER,
        statement="Without a lower clip the entropy collapses; with a tight one it explodes.",
        status="toy",
    )
)

register(
    StatisticalClaim(
        id="baselines/no-lower-clip-collapses",
        paper=BASELINES,
        judges=("M2",),
        title="Without a lower clip noise alone collapses the entropy",
        source="Mechanism M2",
        statement="Without any signal, taking the lower clip away leaves the entropy at least one nat below that of "
        "the symmetric clip.",
        scope="Null bandit with 100 arms, Zipf starting policy, learning rate 16, 60 rollouts of four passes.",
        unit="nats",
        setting=NULL_REWARD,
        arms={"no lower clip": {"objective": "ppo(clip_low=1e9)"}, "symmetric": PPO},
        estimand=difference(final("exact/entropy"), of="no lower clip", minus="symmetric"),
        direction="less",
        threshold=-1.0,
        acts=(("symmetric", "clip/low_fraction"),),
        curves=("exact/entropy", "clip/fraction"),
        falsifier=Falsifier(
            "The upper clip is taken away instead.", {"no lower clip": {"objective": "ppo(clip_high=1e9)"}}
        ),
        recorded="reproduced",
    )
)

PEAKED_NOISE = NULL_REWARD | {
    "env": "NullBandit-v1(initial=peaked,contexts=16)",
    "learning_rate": 32.0,
    "steps": 30,
}

register(
    StatisticalClaim(
        id="baselines/tight-lower-clip-explodes",
        paper=BASELINES,
        judges=("M2",),
        title="With a tight lower clip noise alone makes the entropy explode",
        source="Mechanism M2",
        statement="Without any signal, a lower offset of 0.05 instead of 0.2 lets the entropy of a peaked policy rise "
        "by at least another half nat within thirty rollouts.",
        scope="Null bandit with 100 arms, every policy starting with one arm of probability 0.9, learning rate 32.",
        unit="nats",
        setting=PEAKED_NOISE,
        arms={"tight": {"objective": "ppo(clip_low=0.05)"}, "symmetric": PPO},
        estimand=difference(final("exact/entropy"), of="tight", minus="symmetric"),
        direction="greater",
        threshold=0.5,
        acts=(("tight", "clip/low_fraction"),),
        curves=("exact/entropy", "clip/fraction"),
        falsifier=Falsifier("The upper offset is tightened instead.", {"tight": {"objective": "ppo(clip_high=0.05)"}}),
        recorded="refuted",
        notes=("Both policies rise; the lower bound is reached by few of the tokens that carry the entropy.",),
    )
)
