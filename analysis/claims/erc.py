"""Claims of ERC: masking tokens by the ratio of entropies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analysis.judging.claim import ExactClaim, Falsifier, Null, StatisticalClaim, Tuning, register
from analysis.judging.estimands import (
    Estimand,
    at_matched,
    average,
    between,
    contrast,
    difference,
    relative_change,
    roughness,
)
from analysis.judging.settings import MODULAR_SUM
from testbed.batch import TokenBatch
from testbed.objectives import make_objective
from testbed.objectives._base import Wrapper
from testbed.objectives.erc import ERC

PAPER = "ERC"
CITATION = "Su et al., arXiv 2512.05591"
PEAKED = MODULAR_SUM | {"env": "ModularSum-v1(initial=peaked)"}
PEAKED_NULL = {"env": "NullBandit-v1(initial=peaked)"}
PEAKED_SCOPE = "Tabular policy on modular sum, every state starting with one token of probability 0.9"
UNMASKED = "erc(beta_low=0.999,beta_high=1000.0)"
NO_BAND = Falsifier("The band is opened so far that nothing is ever masked.", {"erc": {"objective": UNMASKED}})
ARMS = {"erc": {"objective": "erc"}, "dapo": {"objective": "dapo"}}
GPPO_ARMS = {"erc": {"objective": "erc(base=gppo)"}, "gppo": {"objective": "gppo"}}
NO_BAND_GPPO = Falsifier(
    "The band is opened so far that nothing is ever masked.",
    {"erc": {"objective": "erc(base=gppo,beta_low=0.999,beta_high=1000.0)"}},
)
ACTS = (("erc", "erc/masked_fraction"),)

# At these learning rates ERC's mean divergence per rollout is that of its base at 16: 0.0072 and 0.0070 nats on DAPO,
# 0.0119 on GPPO, found on seeds that judge nothing. Without it every comparison is one of step sizes.
SAME_MOVEMENT = {"learning_rate": 36.0}
SAME_MOVEMENT_GPPO = {"learning_rate": 54.0}
SAME_MOVEMENT_SCOPE = (
    f"{PEAKED_SCOPE}. ERC at learning rate 36, where its divergence per rollout is on average that of its base at 16."
)


def _mask_share_over_clip_share(times: float) -> Estimand:
    masked, clipped = average("erc/masked_fraction"), average("clip/fraction")
    return Estimand(
        f"[erc] {masked.description} - {times:g} × [dapo] {clipped.description}",
        lambda runs: masked.read(runs["erc"]) - times * clipped.read(runs["dapo"]),
        frozenset({"erc", "dapo"}),
        alike=False,
    )


# -- what is masked ------------------------------------------------------------------------------------------------

register(
    StatisticalClaim(
        id="erc/mask-share",
        paper=PAPER,
        title="The entropy band masks far more than the clip",
        source=f"{CITATION}, statement E2",
        statement="ERC masks more than ten times as many tokens as the ratio clip of its base objective clips.",
        scope="Tabular policy on modular sum, every state starting with one token of probability 0.9; learning rate 4, "
        "where the clip acts on well under one token in a thousand, as in the paper.",
        unit="share of response tokens",
        setting=PEAKED | {"learning_rate": 4.0},
        arms=ARMS,
        estimand=_mask_share_over_clip_share(10.0),
        direction="greater",
        threshold=0.0,
        planted=0.04,
        acts=ACTS,
        curves=("erc/masked_fraction", "clip/fraction"),
        falsifier=NO_BAND,
        recorded="reproduced",
        notes=(
            "The paper reports 20.29 % masked against about 0.02 % clipped; theory predicts the gap without a model.",
        ),
    )
)
VARIED = "initial=normal,scale=3.0"
MASKED_BELOW_KEPT = between(average("erc/masked_entropy"), average("erc/kept_entropy"), arm="erc", times=0.9)
register(
    StatisticalClaim(
        id="erc/masks-low-entropy-tokens",
        paper=PAPER,
        title="Masked tokens sit at low entropy",
        source=f"{CITATION}, statement E3",
        statement="The tokens ERC masks have a mean old entropy at least a tenth below that of the tokens it keeps.",
        scope="Tabular policy on modular sum whose states start with entropies of every size (logits from N(0, 3²)). "
        "Where all states start with the same entropy the statement has no content, and that is the falsifier.",
        unit="nats",
        setting=MODULAR_SUM | {"env": f"ModularSum-v1({VARIED})", "learning_rate": 4.0},
        arms=ARMS,
        estimand=MASKED_BELOW_KEPT,
        direction="less",
        threshold=0.0,
        planted=-0.15,
        null=Null({"env": f"NullBandit-v1({VARIED})"}, MASKED_BELOW_KEPT),
        acts=ACTS,
        curves=("erc/masked_entropy", "erc/kept_entropy"),
        falsifier=Falsifier(
            "Every state starts with the same entropy, so low entropy cannot be what is selected.",
            {"erc": {"objective": "erc", "env": "ModularSum-v1(initial=peaked)"}},
        ),
        recorded="reproduced",
    )
)

# -- how far the policy moves --------------------------------------------------------------------------------------

for name, base, arms, falsifier, number, planted in (
    (
        "smaller-steps",
        "DAPO",
        ARMS,
        NO_BAND,
        "abstract: a global constraint on the policy's drift; mechanism M6",
        -1.2e-3,
    ),
    ("gppo-smaller-steps", "GPPO", GPPO_ARMS, NO_BAND_GPPO, "statement E5; mechanism M6", -3e-3),
):
    register(
        StatisticalClaim(
            id=f"erc/{name}",
            paper=PAPER,
            title=f"Each iteration moves the policy less, on {base}",
            source=f"{CITATION}, {number}",
            statement="With ERC the divergence between the policies before and after an iteration is at least a tenth "
            f"smaller than with {base} alone.",
            scope=f"{PEAKED_SCOPE}, learning rate 16; exact divergence of whole responses.",
            unit="nats per response",
            setting=PEAKED,
            arms=arms,
            estimand=contrast(average("exact/kl_step"), of="erc", minus=base.lower(), times=0.9),
            direction="less",
            threshold=0.0,
            planted=planted,
            acts=ACTS,
            curves=("exact/kl_step", "exact/regret"),
            falsifier=falsifier,
            recorded="reproduced",
        )
    )


@dataclass(frozen=True, kw_only=True)
class _HalfTrained(Wrapper):
    """Trains on every second response and watches the others: which of their tokens move without being trained on.

    `drift/unsampled` is the mean |log r| over tokens of held-out responses that no trained response contains, in the
    same state: equal old log-probabilities are taken for the same action of the same state.
    """

    name: ClassVar[str] = "half_trained"

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self.wrapped.token_loss(batch).where(_trained(batch), 0)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor | None:
        gradient = self.wrapped.log_prob_gradient(batch) if self.wrapped.has_closed_form else None
        return None if gradient is None else gradient.where(_trained(batch), 0)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        old, moved = batch.old_log_probs, batch.log_ratio.detach().abs()
        held_out = old[..., 1::2, :]
        sampled = (held_out.unsqueeze(-2) == old[..., ::2, :].unsqueeze(-3)).any(-2)
        unsampled = batch.mask[..., 1::2, :] & ~sampled
        drift = moved[..., 1::2, :].where(unsampled, 0).sum((-2, -1)) / unsampled.sum((-2, -1))
        return {**self.wrapped.own_metrics(batch), "drift/unsampled": drift}


def _trained(batch: TokenBatch) -> Tensor:
    trained = torch.zeros_like(batch.mask)
    trained[..., ::2, :] = True
    return trained


for name, base, model, where, recorded, planted in (
    ("unsampled-drift", "dapo", "tabular", "Tabular policy, where actions share no parameters", "refuted", -2e-3),
    (
        "unsampled-drift-shared",
        "dapo",
        "low_rank(rank=4)",
        "Logits of rank 4, where every action moves the others",
        "reproduced",
        -5e-3,
    ),
    (
        "gppo-unsampled-drift-shared",
        "gppo",
        "low_rank(rank=4)",
        "Logits of rank 4, where every action moves the others",
        "reproduced",
        -0.05,
    ),
):
    register(
        StatisticalClaim(
            id=f"erc/{name}",
            paper=PAPER,
            title=f"Actions that were not sampled move less, on {base.upper()}, {model.partition('(')[0]} policy",
            source=f"{CITATION}, abstract: the clip leaves actions that were not sampled unconstrained, ERC does not",
            statement="With ERC the log-probabilities of actions that no trained response contains move at least a "
            f"tenth less than with {base.upper()} alone.",
            scope=f"{where}; modular sum starting with one token of probability 0.9, learning rate 16. Half of each "
            "group is trained on; the other half shows which of its own actions moved although nothing trained them.",
            unit="nats of |log r|",
            setting=PEAKED | {"model": model},
            arms={
                "erc": {"objective": _HalfTrained(base=f"erc(base={base})")},
                base: {"objective": _HalfTrained(base=base)},
            },
            estimand=contrast(average("drift/unsampled"), of="erc", minus=base, times=0.9),
            direction="less",
            threshold=0.0,
            planted=planted,
            acts=ACTS,
            curves=("exact/tv_step", "exact/kl_step"),
            falsifier=Falsifier(
                "The band is opened so far that nothing is ever masked.",
                {"erc": {"objective": _HalfTrained(base=f"erc(base={base},beta_low=0.999,beta_high=1000.0)")}},
            ),
            tier="full",
            # In a table the effect is close to the threshold of a tenth, so more seeds are needed to tell them apart.
            seeds=1664 if model == "tabular" else 80,
            recorded=recorded,  # type: ignore[arg-type]
            notes=(
                "In a table the unsampled actions of a state move as one rigid block (T7), so there is little to "
                "constrain. ERC at twice the learning rate moves them more than its base does: the constraint is on "
                "the pace.",
            ),
        )
    )


def _movement_of_kept_tokens(margin: float) -> float:
    """Total variation between two policies that agree on the sampled token and swap the others, if ERC keeps it."""
    likely, unlikely = (0.5 * torch.tensor([margin, -margin], dtype=torch.float64).sigmoid()).tolist()
    old = torch.tensor([0.5, likely, unlikely], dtype=torch.float64)
    new = old[[0, 2, 1]]
    entropies = [-(policy * policy.log()).sum().reshape(1, 1) for policy in (new, old)]
    one = torch.ones(1, 1, dtype=torch.float64)
    batch = TokenBatch(
        log_probs=new[:1].log().reshape(1, 1),
        old_log_probs=old[:1].log().reshape(1, 1),
        advantages=one,
        mask=one.bool(),
        entropies=entropies[0],
        old_entropies=entropies[1],
    )
    objective = make_objective("erc")
    assert isinstance(objective, ERC)
    kept = bool(objective.kept(batch).all()) and objective.token_loss(batch).item() == -1.0
    return float((new - old).abs().sum() / 2) if kept else 0.0


register(
    ExactClaim(
        id="erc/kept-means-unmoved",
        paper=PAPER,
        title="Where a token is kept, the policy has hardly moved",
        source=f"{CITATION}, abstract: the entropy ratio as a measure of the change of the whole distribution",
        statement="At a position where the sampled token has ratio 1 and ERC keeps it, the policy has moved by at most "
        "0.05 in total variation.",
        scope="Exact, one position with three actions: the sampled one at 0.5, the other two exchange their "
        "probabilities. How often training does such a thing is the claims on unsampled drift.",
        unit="total variation",
        measure=lambda: _movement_of_kept_tokens(4.0),
        tolerance=0.05,
        falsifier=Falsifier(
            "The two unsampled actions lie further apart, so that more is exchanged.",
            measure=lambda: _movement_of_kept_tokens(8.0),
        ),
        recorded="refuted",
        notes=(
            "Entropy does not see which action holds which probability: ratio and entropy ratio are both 1 while the "
            "policies are 0.48 apart. The band constrains how concentrated a policy is, not where.",
        ),
    )
)

# -- how smooth training is ----------------------------------------------------------------------------------------

ROUGHNESS_SCOPE = (
    "Roughness is the standard deviation of the curve's second difference, which a steady decline does not have."
)
EXCURSION_SCOPE = "Change per iteration of the policy's own entropy per token, |log ratio|, by dynamic programming."
ENTROPY_ROUGHNESS = roughness("exact/token_entropy")
MEAN_EXCURSION, TAIL_EXCURSION = (relative_change("exact/token_entropy", part) for part in (None, 0.95))

for name, measure, title, what, scope, unit, planted, recorded, moving in (
    (
        "smoother-entropy",
        ENTROPY_ROUGHNESS,
        "The entropy curve is smoother",
        "the entropy curve is at least a tenth less rough",
        ROUGHNESS_SCOPE,
        "nats per token",
        -0.0015,
        "reproduced",
        {},
    ),
    (
        "smoother-entropy-same-movement",
        ENTROPY_ROUGHNESS,
        "The entropy curve is smoother at the same movement",
        "the entropy curve is at least a tenth less rough",
        ROUGHNESS_SCOPE,
        "nats per token",
        -0.001,
        "inconclusive",
        SAME_MOVEMENT,
    ),
    (
        "smaller-entropy-excursions",
        MEAN_EXCURSION,
        "Entropy changes less per iteration",
        "the entropy changes by at least a tenth less per iteration, on average",
        EXCURSION_SCOPE,
        "nats of log entropy",
        -0.001,
        "reproduced",
        {},
    ),
    (
        "rarer-entropy-excursions",
        TAIL_EXCURSION,
        "Large entropy changes are rarer",
        "the 95 % quantile of the entropy's change per iteration is at least a tenth smaller",
        EXCURSION_SCOPE,
        "nats of log entropy",
        -0.004,
        "reproduced",
        {},
    ),
    (
        "rarer-entropy-excursions-same-movement",
        TAIL_EXCURSION,
        "Large entropy changes are rarer at the same movement",
        "the 95 % quantile of the entropy's change per iteration is at least a tenth smaller",
        EXCURSION_SCOPE,
        "nats of log entropy",
        -0.004,
        "refuted",
        SAME_MOVEMENT,
    ),
):
    estimand = contrast(measure, of="erc", minus="dapo", times=0.9)
    setting_scope = SAME_MOVEMENT_SCOPE if moving else f"{PEAKED_SCOPE}, learning rate 16 for both."
    register(
        StatisticalClaim(
            id=f"erc/{name}",
            paper=PAPER,
            title=title,
            source=f"{CITATION}, statement E4",
            statement=f"With ERC {what} than with its base objective alone.",
            scope=f"{setting_scope} {scope}",
            unit=unit,
            setting=PEAKED,
            arms=ARMS | {"erc": ARMS["erc"] | moving},
            estimand=estimand,
            direction="less",
            threshold=0.0,
            planted=planted,
            null=Null(PEAKED_NULL, estimand),
            acts=ACTS,
            curves=("exact/token_entropy", "exact/kl_step"),
            falsifier=Falsifier(NO_BAND.description, {"erc": {"objective": UNMASKED} | moving}),
            seeds=176,
            recorded=recorded,  # type: ignore[arg-type]
            notes=(
                "ERC also takes smaller steps, and a smaller step is smoother by itself: the variants at the same "
                "movement separate the two, and most of the smoothness goes.",
            ),
        )
    )

for name, base, arms, falsifier, moving, number, planted in (
    ("smoother-gradient-norm", "DAPO", ARMS, NO_BAND, SAME_MOVEMENT, "E4", -0.0015),
    ("gppo-smoother-gradient-norm", "GPPO", GPPO_ARMS, NO_BAND_GPPO, SAME_MOVEMENT_GPPO, "E4 and E5", -0.005),
):
    register(
        StatisticalClaim(
            id=f"erc/{name}",
            paper=PAPER,
            title=f"The gradient norm is smoother at the same movement, on {base}",
            source=f"{CITATION}, statement {number}",
            statement=f"With ERC the gradient norm's curve is at least a tenth less rough than with {base} alone.",
            scope=f"{PEAKED_SCOPE}. ERC at learning rate {moving['learning_rate']:g}, where its divergence per rollout "
            f"is on average that of {base} at 16. {ROUGHNESS_SCOPE}",
            unit="gradient norm",
            setting=PEAKED,
            arms=arms | {"erc": arms["erc"] | moving},
            estimand=contrast(roughness("gradient/norm"), of="erc", minus=base.lower(), times=0.9),
            direction="less",
            threshold=0.0,
            planted=planted,
            acts=ACTS,
            curves=("gradient/norm", "exact/kl_step"),
            falsifier=Falsifier(falsifier.description, {"erc": {**falsifier.arms["erc"], **moving}}),
            recorded="reproduced",
        )
    )
register(
    StatisticalClaim(
        id="erc/gppo-smoother-entropy",
        paper=PAPER,
        title="The entropy curve is smoother, on GPPO",
        source=f"{CITATION}, statements E4 and E5",
        statement="With ERC the entropy curve is at least a tenth less rough than with GPPO alone.",
        scope=f"{PEAKED_SCOPE}. ERC at learning rate 54, where its divergence per rollout is on average that of GPPO "
        f"at 16. {ROUGHNESS_SCOPE}",
        unit="nats per token",
        setting=PEAKED,
        arms=GPPO_ARMS | {"erc": GPPO_ARMS["erc"] | SAME_MOVEMENT_GPPO},
        estimand=contrast(ENTROPY_ROUGHNESS, of="erc", minus="gppo", times=0.9),
        direction="less",
        threshold=0.0,
        planted=-0.001,
        null=Null(PEAKED_NULL, contrast(ENTROPY_ROUGHNESS, of="erc", minus="gppo", times=0.9)),
        acts=ACTS,
        curves=("exact/token_entropy", "exact/kl_step"),
        falsifier=Falsifier(NO_BAND_GPPO.description, {"erc": {**NO_BAND_GPPO.arms["erc"], **SAME_MOVEMENT_GPPO}}),
        recorded="inconclusive",
        seeds=160,
        tier="full",
    )
)

# -- what it buys --------------------------------------------------------------------------------------------------

for name, moving, setting_scope, recorded in (
    ("reward-at-matched-divergence", {}, f"{PEAKED_SCOPE}, learning rate 16 for both", "reproduced"),
    ("reward-at-matched-divergence-same-movement", SAME_MOVEMENT, SAME_MOVEMENT_SCOPE.rstrip("."), "refuted"),
):
    register(
        StatisticalClaim(
            id=f"erc/{name}",
            paper=PAPER,
            title="More reward for the same divergence" + (", at the same movement" if moving else ""),
            source=f"{CITATION}, statement E1, at matched divergence instead of benchmark scores",
            statement="Where the cumulative divergence reaches 0.05 nats, ERC's exact return is at least 0.05 "
            "above DAPO's.",
            scope=f"{setting_scope}. Divergence summed over iterations, exact, of whole responses.",
            unit="reward",
            setting=PEAKED,
            arms=ARMS | {"erc": ARMS["erc"] | moving},
            estimand=difference(at_matched("exact/return", "exact/kl_cumulative", 0.05), of="erc", minus="dapo"),
            direction="greater",
            threshold=0.05,
            acts=ACTS,
            curves=("exact/return", "exact/kl_cumulative"),
            falsifier=Falsifier(NO_BAND.description, {"erc": {"objective": UNMASKED} | moving}),
            recorded=recorded,  # type: ignore[arg-type]
            notes=(
                "Many small steps to a point cost less summed divergence than few large ones, whatever the objective: "
                "at the same movement per rollout nothing is left of the gain.",
                "The matched level was lowered from 0.1 to 0.05 nats after a seed of an earlier judging run never "
                "reached 0.1; the master seeds of the record are later ones, with which nothing was chosen.",
            ),
        )
    )
RARE_ARM = MODULAR_SUM | {"env": "RareArm-v1", "steps": 100}
for name, base, arms, falsifier, number, recorded in (
    ("regret-tuned", "dapo", ARMS, NO_BAND, "E1", "refuted"),
    ("gppo-regret-tuned", "gppo", GPPO_ARMS, NO_BAND_GPPO, "E5", "inconclusive"),
):
    register(
        StatisticalClaim(
            id=f"erc/{name}",
            paper=PAPER,
            title=f"More reward than {base.upper()} alone, learning rates tuned",
            source=f"{CITATION}, statement {number}, regret instead of benchmark scores",
            statement=f"ERC's mean regret over training is at least 0.02 below that of {base.upper()} alone.",
            scope="RareArm-v1: 16 contexts, 100 arms, the best arm with initial probability 0.01, tabular policy; "
            "learning rate of each arm chosen from one grid.",
            unit="reward",
            setting=RARE_ARM,
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
            recorded=recorded,  # type: ignore[arg-type]
            notes=(
                "The paper's gains are one to two points of benchmark scores on language models, where parameters are "
                "shared and the clip acts on one token in five thousand.",
            ),
        )
    )
