"""M1. What the clip does to the entropy when there is nothing to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.claims.mechanisms import BASELINES, PAPER, since_the_start
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import Array, Estimand, final, in_order
from analysis.judging.settings import NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from analysis.statistics import Verdict
from analysis.trajectories import Trajectories

file_entry(
    Entry(
        number="M1",
        source=PAPER,
        statement="Without a reward signal the entropy falls or rises with (ε_low, ε_high); the boundary lies "
        "at equal offsets (arithmetic) or at ε_low/(1-ε_low) (logarithmic).",
        status="toy",
        reason="Directions over a grid, the boundary at the two points that tell the rules apart. Over tens "
        "of rollouts repeated wins of single arms take over, and from spread policies noise lowers "
        "the entropy at any offsets.",
    )
)

PEAKED_NOISE = NULL_REWARD | {
    "env": "NullBandit-v1(initial=peaked,contexts=16)",
    "learning_rate": 32.0,
    "steps": 5,
}

SPREAD_NOISE = PEAKED_NOISE | {"env": "NullBandit-v1(contexts=16)"}

UPPER_OFFSETS = {
    f"ε_high {offset:g}": {"objective": f"ppo(clip_low=0.5,clip_high={offset})"} for offset in (0.25, 0.5, 1.0, 2.0)
}

NOISE_ACTS = (("ε_high 0.25", "clip/high_fraction"), ("ε_high 0.25", "clip/low_fraction"))


def _in_order_of_upper_offset(
    name: str, *, setting: Mapping[str, Any], policy: str, recorded: Verdict
) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"baselines/{name}",
        paper=BASELINES,
        judges=("M1",),
        title=f"Under noise the upper bound steers the entropy of a {policy} policy",
        source="Mechanism M1",
        statement="Without any signal, with a lower offset of one half, each step of the upper offset from 0.25 "
        "over 0.5 and 1 to 2 raises the entropy by at least 0.05 nats within five rollouts.",
        scope=f"Null bandit with 100 arms, {policy} starting policy, learning rate 32, four passes.",
        unit="nats",
        setting=setting,
        arms=UPPER_OFFSETS,
        estimand=in_order(final("exact/entropy"), list(UPPER_OFFSETS)),
        statistic="smallest step",
        direction="greater",
        threshold=0.05,
        acts=NOISE_ACTS,
        curves=("exact/entropy", "clip/high_fraction", "clip/low_fraction"),
        falsifier=Falsifier(
            "The offsets are moved to the lower bound, with an upper offset of one half.",
            {
                "ε_high 0.25": {"objective": "ppo(clip_low=0.25,clip_high=0.5)"},
                "ε_high 0.5": {"objective": "ppo(clip_low=0.5,clip_high=0.5)"},
                "ε_high 1": {"objective": "ppo(clip_low=0.75,clip_high=0.5)"},
                "ε_high 2": {"objective": "ppo(clip_low=1.0,clip_high=0.5)"},
            },
        ),
        seeds=256,
        recorded=recorded,
    )


register(_in_order_of_upper_offset("noise-order-peaked", setting=PEAKED_NOISE, policy="peaked", recorded="reproduced"))
register(_in_order_of_upper_offset("noise-order-spread", setting=SPREAD_NOISE, policy="spread", recorded="refuted"))


def _boundary(name: str, *, rule: str, formula: str, offset: float, recorded: Verdict) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"baselines/{name}",
        paper=BASELINES,
        judges=("M1",),
        title=f"Where noise leaves the entropy alone: the {rule} rule",
        source="Mechanism M1 (a heuristic of saturated clips, not a theorem)",
        statement=f"Without any signal the entropy stays within 0.2 nats of its start when {formula}, here "
        f"(ε_low, ε_high) = (½, {offset:g}).",
        scope="Null bandit with 100 arms, every policy starting with one arm of probability 0.9; learning rate 32, "
        "five rollouts, four passes. From a spread policy noise lowers the entropy at either pair of offsets.",
        unit="nats",
        setting=PEAKED_NOISE,
        arms=UPPER_OFFSETS,
        estimand=since_the_start("exact/entropy", f"ε_high {offset:g}"),
        direction="equivalent",
        threshold=0.2,
        planted=0.0,
        acts=NOISE_ACTS,
        curves=("exact/entropy", "exact/kl_initial"),
        falsifier=Falsifier("The upper offset is raised to two.", {f"ε_high {offset:g}": UPPER_OFFSETS["ε_high 2"]}),
        seeds=80,
        recorded=recorded,
        notes=("On top of either rule a peaked policy drifts upwards under noise without a clip (T12).",),
    )


register(
    _boundary(
        "noise-boundary-arithmetic", rule="arithmetic", formula="ε_high = ε_low", offset=0.5, recorded="reproduced"
    )
)
register(
    _boundary(
        "noise-boundary-logarithmic",
        rule="logarithmic",
        formula="ε_high = ε_low/(1-ε_low)",
        offset=1.0,
        recorded="refuted",
    )
)

GRID = {
    f"({low:g}, {high:g})": {"objective": f"ppo(clip_low={low},clip_high={high})"}
    for low in (0.25, 0.5, 0.75)
    for high in (0.25, 0.5, 1.0, 2.0)
}


def _smallest_step_on_the_grid(runs: Mapping[str, Trajectories]) -> Array:
    """Every step of the grid, cumulated so that the statistic "smallest step" is the smallest of them all."""
    entropy = np.stack([runs[arm]["exact/entropy"][-1] for arm in GRID]).reshape(3, 4, -1)
    rises, falls = np.diff(entropy, axis=1).reshape(9, -1), -np.diff(entropy, axis=0).reshape(8, -1)
    return np.concatenate([np.zeros((1, rises.shape[1])), rises, falls]).cumsum(0).T


register(
    StatisticalClaim(
        id="baselines/noise-grid",
        paper=BASELINES,
        judges=("M1",),
        title="Under noise the asymmetry of the clip steers the entropy, over a grid",
        source="Mechanism M1",
        statement="Without any signal, at every point of the grid of ε_low 0.25, 0.5, 0.75 and ε_high 0.25, 0.5, 1, 2, "
        "the entropy after five rollouts rises with ε_high and falls with ε_low.",
        scope="Null bandit with 100 arms, every policy starting with one arm of probability 0.9; learning rate 32, "
        "four passes. The smallest of the grid's seventeen steps is judged.",
        unit="nats",
        setting=PEAKED_NOISE,
        arms=GRID,
        estimand=Estimand(
            "exact/entropy after the last step over the grid of (ε_low, ε_high): steps up in ε_high, then down in "
            "ε_low",
            _smallest_step_on_the_grid,
            frozenset(GRID),
        ),
        statistic="smallest step",
        direction="greater",
        threshold=0.0,
        planted=0.1,
        acts=(("(0.25, 0.25)", "clip/high_fraction"), ("(0.25, 0.25)", "clip/low_fraction")),
        curves=("exact/entropy", "clip/high_fraction", "clip/low_fraction"),
        falsifier=Falsifier(
            "The two offsets of a corner of the grid are exchanged.",
            {"(0.25, 2)": {"objective": "ppo(clip_low=2.0,clip_high=0.25)"}},
        ),
        recorded="reproduced",
        seeds=256,
    )
)
