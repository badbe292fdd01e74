"""E5. ERC on GPPO."""

from __future__ import annotations

from analysis.claims.erc import (
    ACTS,
    CITATION,
    ENTROPY_ROUGHNESS,
    FINETUNE,
    GPPO_ARMS,
    NO_BAND_GPPO,
    PAPER,
    PEAKED,
    PEAKED_NULL,
    PEAKED_SCOPE,
    ROUGHNESS_SCOPE,
    SAME_MOVEMENT_GPPO,
    UNMASKED_GPPO,
)
from analysis.claims.erc.e1_scores import less_regret
from analysis.claims.erc.e4_smoothness_and_drift import moves_less, smoother_gradient_norm, unsampled_actions_move_less
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import contrast
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="E5",
        source=PAPER,
        statement="ERC improves GPPO as well.",
        status="toy",
        configuration="On language models: " + FINETUNE.format(erc="erc(base=gppo)", base="gppo"),
        reason="Benchmark scores, code and instruction following need language models.",
    )
)

register(
    moves_less(
        "gppo-smaller-steps",
        judges=("E5",),
        base="GPPO",
        arms=GPPO_ARMS,
        falsifier=NO_BAND_GPPO,
        source="statement E5; mechanism M6",
        planted=-3e-3,
    )
)
register(
    unsampled_actions_move_less(
        "gppo-unsampled-drift-shared",
        judges=("E5",),
        base="gppo",
        model="low_rank(rank=4)",
        seeds=80,
        recorded="reproduced",
        planted=-0.05,
    )
)
register(
    smoother_gradient_norm(
        "gppo-smoother-gradient-norm",
        number="E5",
        base="GPPO",
        arms=GPPO_ARMS,
        unmasked=UNMASKED_GPPO,
        rate=SAME_MOVEMENT_GPPO["learning_rate"],
        source="statement E4 and E5",
        planted=-0.005,
    )
)

register(
    StatisticalClaim(
        id="erc/gppo-smoother-entropy",
        paper=PAPER,
        judges=("E5",),
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

register(
    less_regret(
        "gppo-regret-tuned",
        number="E5",
        base="gppo",
        arms=GPPO_ARMS,
        falsifier=NO_BAND_GPPO,
        recorded="inconclusive",
    )
)
