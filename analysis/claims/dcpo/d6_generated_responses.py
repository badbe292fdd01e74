"""D6. How many responses are generated per update, and until a reward is reached."""

from __future__ import annotations

from dataclasses import replace

import torch

from analysis.claims.dcpo import CAPPED, CITATION, DCPO, PAPER
from analysis.judging.claim import ExactClaim, Falsifier, StatisticalClaim, Tuning, register
from analysis.judging.estimands import contrast, time_to
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from testbed.sampling import collect_groups

file_entry(
    Entry(
        number="D6",
        source=PAPER,
        statement="For the same number of updates DAPO generates three to five times as many responses as DCPO, which "
        "costs at least twice the GPU hours.",
        status="toy",
        reason="GPU hours depend on the machine. Per update and per reward reached are different questions.",
    )
)


def _rounds_beyond_the_published_range(utilisation: float, *, whole_batches: bool) -> float:
    """How far the generated groups per kept group lie outside 3 to 5, when this share of groups is mixed."""
    size, round_size = 1000, 1000 if whole_batches else 1
    # 617 and 1000 have no common factor: every thousand groups holds the exact share, spread evenly.
    mixed = torch.arange(6 * size) * 617 % 1000 < round(1000 * utilisation)
    drawn = iter(mixed.double().split(round_size))

    def draw() -> tuple[torch.Tensor, list[None]]:
        # Two responses stand for a group: different rewards where it is mixed.
        first = next(drawn)
        return torch.stack([first, torch.zeros_like(first)], dim=-1), [None] * len(first)

    collected = collect_groups(draw, size, max_rounds=len(mixed) // round_size)
    cost = collected.drawn / size
    return max(3 - cost, cost - 5, 0.0)


def _worst_over_model_sizes(*, whole_batches: bool) -> float:
    return max(
        _rounds_beyond_the_published_range(share, whole_batches=whole_batches) for share in (0.456, 0.483, 0.374, 0.439)
    )


register(
    ExactClaim(
        id="dcpo/dynamic-sampling-cost",
        paper=PAPER,
        judges=("D6", "M14", "T11"),
        title="What dynamic sampling generates",
        source=f"{CITATION}, statement D6",
        statement="Filling each batch with mixed groups takes three to five times as many responses as are used, at "
        "each response utilisation the paper reports for GRPO.",
        scope="Counting, with the shipped dynamic sampling: the utilisations of four model sizes (45.6, 48.3, 37.4 and "
        "43.9 %) as shares of mixed groups, whole batches drawn until one is full, the surplus dropped.",
        unit="multiples of a batch outside 3 to 5",
        measure=lambda: _worst_over_model_sizes(whole_batches=True),
        tolerance=0.0,
        falsifier=Falsifier(
            "Groups are drawn one by one, which drops no surplus and costs 2.1 to 2.7 times.",
            measure=lambda: _worst_over_model_sizes(whole_batches=False),
        ),
        recorded="reproduced",
        notes=(
            "All four utilisations give three draws. The factor is per update: a filtered group has no gradient, so "
            "filtering makes an update larger and adds nothing per generated response; what it costs until a given "
            "reward is the claims dcpo/samples-to-target and its tuned variant.",
        ),
    )
)

SAMPLES_SCOPE = (
    "64 prompts whose success rates follow Beta(½, ½), groups of 16, tabular policy. A filtered group has no gradient, "
    "so per generated response dynamic sampling equals the plain objective up to the size of the update: DAPO is run "
    "without it and charged for nothing but its rollouts."
)

AT_ONE_RATE = StatisticalClaim(
    id="dcpo/samples-to-target",
    paper=PAPER,
    judges=("D6", "M14"),
    title="Responses generated until a target reward",
    source=f"{CITATION}, statement D6, counted to a reward instead of to a number of updates",
    statement="To reach an exact return of 0.9 DCPO generates at most half the responses that DAPO generates.",
    scope=f"{SAMPLES_SCOPE} One learning rate, 64, for both.",
    unit="rollouts",
    setting=MODULAR_SUM | {"env": "DifficultyMixture-v1", "steps": 60, "learning_rate": 64.0, "advantage": None},
    arms={"dcpo": {"objective": DCPO}, "dapo": {"objective": "dapo"}},
    estimand=contrast(time_to("exact/return", 0.9), of="dcpo", minus="dapo", times=0.5),
    direction="less",
    threshold=0.0,
    planted=-2.0,
    acts=(("dapo", "clip/fraction"),),
    curves=("exact/return", "group/zero_variance_fraction"),
    falsifier=CAPPED,
    seeds=48,
    recorded="reproduced",
    notes=(
        "At one learning rate DCPO's wider bounds let a rollout move the policy further. Larger steps let DAPO "
        "do the same, and the difference is gone.",
    ),
)
register(AT_ONE_RATE)
register(
    replace(
        AT_ONE_RATE,
        id="dcpo/samples-to-target-tuned",
        title="Responses generated until a target reward, learning rates tuned",
        scope=f"{SAMPLES_SCOPE} Learning rate of each arm chosen from one grid up to 16384.",
        statistic="iqm",
        tuning=Tuning((64.0, 256.0, 1024.0, 4096.0, 16384.0), time_to("exact/return", 0.9), better="lower"),
        tier="full",
        recorded="refuted",
    )
)
