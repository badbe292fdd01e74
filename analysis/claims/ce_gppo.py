"""Claims of CE-GPPO: the gradient kept at each clip bound steers the entropy."""

from __future__ import annotations

from analysis.claims._claim import ExactClaim, Falsifier, StatisticalClaim, register
from analysis.claims._estimands import at_matched, average, contrast, difference, final
from analysis.claims._settings import MODULAR_SUM, NULL_REWARD
from analysis.theory.gradient_weights import autograd_update, random_tokens

PAPER = "CE-GPPO"
CITATION = "Su et al., arXiv 2509.20712v5"
BOTH, NO_BETA1, NO_BETA2 = (
    "ce_gppo(beta1=1.0,beta2=1.0)",
    "ce_gppo(beta1=0.0,beta2=1.0)",
    "ce_gppo(beta1=1.0,beta2=0.0)",
)
MATCHED = at_matched("exact/entropy", "exact/return", 0.9)
NULL_NOTE = "The same comparison without any reward signal is the claim ce-gppo/null-reward-order."

register(
    StatisticalClaim(
        id="ce-gppo/beta1-lowers-entropy",
        paper=PAPER,
        title="β₁ lowers the entropy",
        source=f"{CITATION}, section 3.1 and statement C2",
        statement="Restoring the gradient of clipped negative tokens (β₁ from 0 to 1) lowers the entropy at equal "
        "reward by at least 0.2 nats.",
        scope="Tabular policy on modular sum, learning rate 16; entropy of a response where the exact return first "
        "reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"with β₁": {"objective": BOTH}, "without β₁": {"objective": NO_BETA1}},
        estimand=difference(MATCHED, of="with β₁", minus="without β₁"),
        direction="less",
        threshold=-0.2,
        acts=(("with β₁", "band/outside_fraction"),),
        falsifier=Falsifier(
            "The coefficient is moved to the other bound: the second arm lacks β₂ instead of β₁.",
            {"without β₁": {"objective": NO_BETA2}},
        ),
        recorded="reproduced",
        notes=(NULL_NOTE,),
    )
)
register(
    StatisticalClaim(
        id="ce-gppo/beta2-raises-entropy",
        paper=PAPER,
        title="β₂ raises the entropy",
        source=f"{CITATION}, section 3.1 and statement C2",
        statement="Restoring the gradient of clipped positive tokens (β₂ from 0 to 1) raises the entropy at equal "
        "reward by at least 0.1 nats.",
        scope="Tabular policy on modular sum, learning rate 16; entropy of a response where the exact return first "
        "reaches 0.9.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"with β₂": {"objective": BOTH}, "without β₂": {"objective": NO_BETA2}},
        estimand=difference(MATCHED, of="with β₂", minus="without β₂"),
        direction="greater",
        threshold=0.1,
        acts=(("with β₂", "band/outside_fraction"),),
        seeds=64,
        falsifier=Falsifier(
            "The coefficient is moved to the other bound: the second arm lacks β₁ instead of β₂.",
            {"without β₂": {"objective": NO_BETA1}},
        ),
        recorded="reproduced",
        notes=(NULL_NOTE,),
    )
)
register(
    StatisticalClaim(
        id="ce-gppo/null-reward-order",
        paper=PAPER,
        title="The order of entropy decay, without a reward",
        source=f"{CITATION}, statement C2",
        statement="The setting (β₁, β₂) = (1, ½) ends at least half a nat below (0, 1) in entropy.",
        scope="Null bandit: 100 arms with a fair coin each, so nothing is learned and the difference is the "
        "objective's "
        "own. Tabular policy, learning rate 16.",
        unit="nats per response",
        setting=NULL_REWARD,
        arms={
            "(1, ½)": {"objective": "ce_gppo(beta1=1.0,beta2=0.5)"},
            "(¾, 1)": {"objective": "ce_gppo(beta1=0.75,beta2=1.0)"},
            "(0, 1)": {"objective": NO_BETA1},
        },
        estimand=difference(final("exact/entropy"), of="(1, ½)", minus="(0, 1)"),
        direction="less",
        threshold=-0.5,
        acts=(("(1, ½)", "band/outside_fraction"),),
        curves=("exact/entropy", "band/outside_fraction"),
        falsifier=Falsifier(
            "The two coefficients of the first arm are exchanged.",
            {"(1, ½)": {"objective": "ce_gppo(beta1=0.5,beta2=1.0)"}, "(0, 1)": {"objective": NO_BETA2}},
        ),
        recorded="reproduced",
    )
)
register(
    StatisticalClaim(
        id="ce-gppo/divergence-like-grpo",
        paper=PAPER,
        title="Divergence stays as small as GRPO's",
        source=f"{CITATION}, statement C5",
        statement="CE-GPPO's divergence per iteration stays within a tenth of that of the hard clip at the same "
        "bounds.",
        scope="Tabular policy on modular sum, learning rate 16, exact divergence of whole responses. The "
        "paper's curves "
        "are of a language model whose clipped share is far smaller.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"ce_gppo": {"objective": "ce_gppo"}, "ppo": {"objective": "ppo"}},
        estimand=contrast(average("exact/kl_step"), of="ce_gppo", minus="ppo", times=1.1),
        direction="less",
        threshold=0.0,
        planted=-0.004,
        acts=(("ce_gppo", "band/outside_fraction"),),
        curves=("exact/kl_step", "gradient/norm"),
        falsifier=Falsifier(
            "Both coefficients are raised to 3, which amplifies the clipped tokens instead of restoring them.",
            {"ce_gppo": {"objective": "ce_gppo(beta1=3.0,beta2=3.0)"}},
        ),
        recorded="refuted",
        notes=(
            "Restored gradients are additional movement: with a few percent of tokens outside the interval it shows.",
        ),
    )
)


def _zero_betas_against_ppo(beta: float) -> float:
    tokens = random_tokens(1)
    ce_gppo = autograd_update(f"ce_gppo(beta1={beta},beta2={beta})", tokens)
    return float(abs(ce_gppo - autograd_update("ppo", tokens)).max())


register(
    ExactClaim(
        id="ce-gppo/zero-betas-are-ppo",
        paper=PAPER,
        title="β₁ = β₂ = 0 has PPO's gradient",
        source=f"{CITATION}, section 3.2",
        statement="With β₁ = β₂ = 0 the gradient of CE-GPPO is PPO's.",
        scope="Exact, in float64, on tokens of every sign and on both sides of both bounds. It is true of gradients "
        "only: the loss values differ, because a clipped token is worth 0 instead of a constant.",
        unit="loss per nat of log-probability",
        measure=lambda: _zero_betas_against_ppo(0.0),
        tolerance=1e-15,
        falsifier=Falsifier(
            "Both coefficients are 0.01 instead of 0.",
            measure=lambda: _zero_betas_against_ppo(0.01),
        ),
        recorded="reproduced",
    )
)
