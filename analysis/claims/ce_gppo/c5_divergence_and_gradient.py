"""C5. Divergence and gradient norm stay GRPO's."""

from __future__ import annotations

from dataclasses import replace

from analysis.claims.ce_gppo import CITATION, PAPER, PPO, SCOPE
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast, roughness
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="C5",
        source=PAPER,
        statement="The divergence from the old policy and the gradient norm stay as stable as GRPO's.",
        status="toy",
        reason="How much restored gradients move a policy depends on the share of clipped tokens, a few percent here.",
    )
)

TRIPLED = Falsifier(
    "Both coefficients are raised to 3, which amplifies the clipped tokens instead of restoring them.",
    {"ce_gppo": {"objective": "ce_gppo(beta1=3.0,beta2=3.0)"}},
)

register(
    StatisticalClaim(
        id="ce-gppo/divergence-like-grpo",
        paper=PAPER,
        judges=("C5",),
        title="Divergence stays as small as GRPO's",
        source=f"{CITATION}, statement C5",
        statement="CE-GPPO's divergence per iteration stays within a tenth of that of the hard clip at the same "
        "bounds.",
        scope="Tabular policy on modular sum, learning rate 16, exact divergence of whole responses. The paper's "
        "curves are of a language model whose clipped share is far smaller.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"ce_gppo": {"objective": "ce_gppo"}, "ppo": PPO},
        estimand=contrast(average("exact/kl_step"), of="ce_gppo", minus="ppo", times=1.1),
        direction="less",
        threshold=0.0,
        planted=-0.004,
        acts=(("ce_gppo", "band/outside_fraction"),),
        curves=("exact/kl_step", "gradient/norm"),
        falsifier=TRIPLED,
        recorded="refuted",
        notes=(
            "Restored gradients are additional movement: with a few percent of tokens outside the interval it shows.",
        ),
    )
)

SIZE = StatisticalClaim(
    id="ce-gppo/gradient-norm-like-grpo",
    paper=PAPER,
    judges=("C5",),
    title="The gradient norm stays GRPO's",
    source=f"{CITATION}, statement C5",
    statement="CE-GPPO's mean gradient norm stays within a tenth of that of the hard clip at the same bounds.",
    scope=f"{SCOPE} Roughness is the standard deviation of the curve's second difference.",
    unit="gradient norm",
    setting=MODULAR_SUM,
    arms={"ce_gppo": {"objective": "ce_gppo"}, "ppo": PPO},
    estimand=contrast(average("gradient/norm"), of="ce_gppo", minus="ppo", times=1.1),
    direction="less",
    threshold=0.0,
    planted=-0.0015,
    acts=(("ce_gppo", "band/outside_fraction"),),
    curves=("gradient/norm", "gradient/norm_max"),
    falsifier=TRIPLED,
    recorded="reproduced",
    notes=(
        "Size and steadiness are judged apart: late in training the hard clip's gradient dies down with its "
        "clipped tokens, CE-GPPO's does not.",
    ),
)
register(SIZE)
register(
    replace(
        SIZE,
        id="ce-gppo/gradient-norm-steadiness",
        title="The gradient norm stays as steady as GRPO's",
        statement="CE-GPPO's curve of the gradient norm is at most a tenth rougher than that of the hard clip at the "
        "same bounds.",
        estimand=contrast(roughness("gradient/norm"), of="ce_gppo", minus="ppo", times=1.1),
        planted=-0.002,
        seeds=96,
        recorded="refuted",
    )
)
