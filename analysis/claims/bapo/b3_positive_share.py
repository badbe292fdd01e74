"""B3. The share of positive tokens in the loss, and its causes."""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.claims.bapo import CITATION, GRPO, LONG_SCOPE, LONGER_WHEN_WRONG, PAPER, SCOPE, bapo
from analysis.judging.claim import ExactClaim, Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, between, difference, value_of
from analysis.judging.on_record import OnRecord
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from testbed.advantages import advantages
from testbed.batch import TokenBatch
from testbed.diagnostics import batch_metrics

file_entry(
    Entry(
        number="B3",
        source=PAPER,
        statement="Positive tokens are a minority throughout GRPO training, in number and in their share of the loss; "
        "responses to hard prompts are longer.",
        status="toy",
        reason="That responses to hard prompts are longer is a property of language models; the claims judge what "
        "follows from it.",
    )
)

POSITIVE_SHARE = average("advantage/positive_loss_fraction")

EQUAL_LENGTHS = "VariableLength-v1(right_length=6.0,wrong_length=6.0)"

LONGER_WHEN_RIGHT = "VariableLength-v1(right_length=8.0,wrong_length=4.0)"


def _share_without_signs(_: object, batch: TokenBatch, __: Tensor) -> Tensor:
    """The positive share if every advantage counted as positive."""
    size = (batch.ratio.detach() * batch.advantages.abs()).where(batch.mask, 0).sum((-2, -1))
    return size / size


POSITIVE_ON_RECORD = OnRecord(
    arms={"grpo": str(GRPO["objective"])},
    sabotaged_estimand=value_of(average("positive share without signs"), "grpo"),
    sabotage="Every advantage counts as positive.",
    measures={"positive share without signs": _share_without_signs},
)

register(
    StatisticalClaim(
        id="bapo/positive-tokens-are-a-minority",
        paper=PAPER,
        judges=("B3",),
        title="Positive tokens are a minority of the loss",
        source=f"{CITATION}, statement B3",
        statement="During GRPO training positive tokens carry less than half of the loss.",
        scope=f"{SCOPE} All responses have the same length; with centred advantages the share on-policy is exactly one "
        "half, so an imbalance can only come from ratios, from length, or from a baseline that is not the mean.",
        unit="share of Σ|rA|",
        setting=MODULAR_SUM,
        arms={"grpo": GRPO},
        estimand=value_of(POSITIVE_SHARE, "grpo"),
        direction="less",
        threshold=0.5,
        planted=0.47,
        acts=(("grpo", "clip/fraction"),),
        curves=("advantage/positive_loss_fraction", "advantage/positive_token_fraction"),
        falsifier=Falsifier(
            "The baseline is removed, so that every reward counts as positive.", {"grpo": GRPO | {"advantage": "none"}}
        ),
        recorded="refuted",
        on_record=POSITIVE_ON_RECORD,
        notes=(
            "Within the passes over a rollout the ratios of positive tokens grow and those of negative ones shrink.",
        ),
    )
)

register(
    StatisticalClaim(
        id="bapo/positive-minority-when-wrong-is-longer",
        paper=PAPER,
        judges=("B3",),
        title="Positive tokens are a minority where wrong responses are longer",
        source=f"{CITATION}, statement B3",
        statement="Where wrong responses are twice as long as right ones, positive tokens carry less than half of the "
        "loss in GRPO training.",
        scope=f"{LONG_SCOPE} Mean over 40 iterations.",
        unit="share of Σ|rA|",
        setting=LONGER_WHEN_WRONG,
        arms={"grpo": GRPO},
        estimand=value_of(POSITIVE_SHARE, "grpo"),
        direction="less",
        threshold=0.5,
        planted=0.47,
        acts=(("grpo", "clip/fraction"),),
        curves=("advantage/positive_loss_fraction", "advantage/positive_token_fraction"),
        falsifier=Falsifier("Right responses are the longer ones.", {"grpo": GRPO | {"env": LONGER_WHEN_RIGHT}}),
        recorded="reproduced",
        seeds=56,
    )
)

register(
    StatisticalClaim(
        id="bapo/length-lowers-the-positive-share",
        paper=PAPER,
        judges=("B3", "M12"),
        title="Cause one, length",
        source=f"{CITATION}, statement B3",
        statement="Wrong responses that are twice as long as right ones lower the positive share of the loss by at "
        "least 0.01 against equal lengths.",
        scope=f"{LONG_SCOPE} Mean over 40 iterations.",
        unit="share of Σ|rA|",
        setting=LONGER_WHEN_WRONG,
        arms={"longer": GRPO, "equal": GRPO | {"env": EQUAL_LENGTHS}},
        estimand=difference(POSITIVE_SHARE, of="longer", minus="equal"),
        direction="less",
        threshold=-0.01,
        acts=(("longer", "clip/fraction"),),
        curves=("advantage/positive_loss_fraction", "advantage/positive_token_fraction"),
        falsifier=Falsifier("Right responses are the longer ones.", {"longer": GRPO | {"env": LONGER_WHEN_RIGHT}}),
        recorded="reproduced",
        seeds=192,
        tier="full",
    )
)

ACTIVE = bapo(low_range="(0.8,0.8)", high_range="(1.2,1.2)", contribution="active")
OPENED = bapo(low_range="(0.0,0.0)", high_range="(1e9,1e9)", contribution="active")

register(
    StatisticalClaim(
        id="bapo/gate-lowers-the-positive-share",
        paper=PAPER,
        judges=("B3",),
        title="Cause two, the clip",
        source=f"{CITATION}, statement B3",
        statement="PPO's clip lowers the positive share: among the tokens that keep a gradient it is at least 0.01 "
        "lower than among all.",
        scope=f"{SCOPE} Share of Σ|rA| with PPO's bounds of 0.8 and 1.2.",
        unit="share of Σ|rA|",
        setting=MODULAR_SUM,
        arms={"ppo": ACTIVE},
        estimand=between(average("bapo/positive_fraction"), POSITIVE_SHARE, arm="ppo"),
        direction="less",
        threshold=-0.01,
        acts=(("ppo", "clip/fraction"),),
        curves=(
            "bapo/positive_fraction",
            "advantage/positive_loss_fraction",
            "clip/high_fraction",
            "clip/low_fraction",
        ),
        falsifier=Falsifier(
            "The bounds are opened so far that nothing is clipped.",
            {"ppo": OPENED},
        ),
        recorded="refuted",
        on_record=OnRecord(
            arms={"ppo": ACTIVE["objective"]},
            sabotaged={"ppo": OPENED["objective"]},
            acts=(("ppo", "clip/fraction"),),
        ),
        notes=(
            "The lower bound cuts off twice as many tokens as the upper one, so what is left is more positive. With "
            "rollouts eight iterations old both cut alike and the share falls by 0.02.",
        ),
    )
)

register(
    StatisticalClaim(
        id="bapo/baseline-moves-the-positive-share",
        paper=PAPER,
        judges=("B3",),
        title="Cause three, the baseline",
        source=f"{CITATION}, statement B3",
        statement="A baseline that remembers earlier visits, DCPO's smooth standardisation, raises the positive share "
        "of the loss by at least 0.05 over the group mean.",
        scope=f"{SCOPE} Rewards rise during training, so a remembered mean lies below the present one.",
        unit="share of Σ|rA|",
        setting=MODULAR_SUM,
        arms={"smooth": GRPO | {"advantage": "smooth_standardised"}, "group": GRPO},
        estimand=difference(POSITIVE_SHARE, of="smooth", minus="group"),
        direction="greater",
        threshold=0.05,
        acts=(("group", "clip/fraction"),),
        curves=("advantage/positive_loss_fraction", "exact/return"),
        falsifier=Falsifier(
            "Another baseline of the present group alone: leave-one-out.",
            {"smooth": GRPO | {"advantage": "leave_one_out"}},
        ),
        recorded="reproduced",
    )
)


def _deviation_from_half(wrong_length: int) -> float:
    """Largest deviation of the positive share from one half on-policy, over random groups with both outcomes."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(50):
        rewards = torch.rand(1, 16, generator=generator, dtype=torch.float64).gt(0.7).double()
        rewards[0, :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
        right = rewards[0] == 1
        lengths = torch.where(right, 4, wrong_length)
        mask = torch.arange(max(4, wrong_length)) < lengths.unsqueeze(-1)
        log_probs = torch.full(mask.shape, -1.0, dtype=torch.float64)
        batch = TokenBatch(
            log_probs=log_probs,
            old_log_probs=log_probs,
            advantages=advantages["group_standardised"](rewards)[0],
            mask=mask,
        )
        share = batch_metrics(batch, None)["advantage/positive_loss_fraction"]
        worst = max(worst, abs(float(share) - 0.5))
    return worst


register(
    ExactClaim(
        id="bapo/balanced-on-policy",
        paper=PAPER,
        judges=("B3", "T1"),
        title="On-policy and at equal lengths the two signs balance",
        source=f"{CITATION}, statement B3 (a boundary the paper does not state)",
        statement="At ratio 1, with responses of one length and group-standardised advantages, positive tokens carry "
        "exactly half of the loss.",
        scope="Exact, on random groups of 16 that hold both outcomes; whatever the success rate.",
        unit="share of Σ|rA|",
        measure=lambda: _deviation_from_half(4),
        tolerance=1e-14,
        falsifier=Falsifier("Wrong responses are twice as long.", measure=lambda: _deviation_from_half(8)),
        recorded="reproduced",
    )
)
