"""Claims of ERC: masking tokens by the ratio of entropies."""

from __future__ import annotations

from analysis.claims._claim import Falsifier, StatisticalClaim, register
from analysis.claims._estimands import Estimand, average, between, contrast, roughness
from analysis.claims._settings import MODULAR_SUM

PAPER = "ERC"
CITATION = "Su et al., arXiv 2512.05591"
PEAKED = MODULAR_SUM | {"env": "ModularSum-v1(initial=peaked)"}
NO_BAND = Falsifier(
    "The band is opened so far that nothing is ever masked.",
    {"erc": {"objective": "erc(beta_low=0.999,beta_high=1000.0)"}},
)
ARMS = {"erc": {"objective": "erc"}, "dapo": {"objective": "dapo"}}


def _mask_share_over_clip_share(times: float) -> Estimand:
    masked, clipped = average("erc/masked_fraction"), average("clip/fraction")
    return Estimand(
        f"[erc] {masked.description} - {times:g} × [dapo] {clipped.description}",
        lambda runs: masked.read(runs["erc"]) - times * clipped.read(runs["dapo"]),
        frozenset({"erc", "dapo"}),
    )


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
        acts=(("erc", "erc/masked_fraction"),),
        curves=("erc/masked_fraction", "clip/fraction"),
        falsifier=NO_BAND,
        recorded="reproduced",
        notes=(
            "The paper reports 20.29 % masked against about 0.02 % clipped; theory predicts the gap without a model.",
        ),
    )
)
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
        setting=MODULAR_SUM | {"env": "ModularSum-v1(scale=3.0)", "learning_rate": 4.0},
        arms=ARMS,
        estimand=between(average("erc/masked_entropy"), average("erc/kept_entropy"), arm="erc", times=0.9),
        direction="less",
        threshold=0.0,
        planted=-0.15,
        acts=(("erc", "erc/masked_fraction"),),
        curves=("erc/masked_entropy", "erc/kept_entropy"),
        falsifier=Falsifier(
            "Every state starts with the same entropy, so low entropy cannot be what is selected.",
            {"erc": {"objective": "erc", "env": "ModularSum-v1(initial=peaked)"}},
        ),
        recorded="reproduced",
    )
)
register(
    StatisticalClaim(
        id="erc/smoother-entropy",
        paper=PAPER,
        title="The entropy curve is smoother",
        source=f"{CITATION}, statement E4",
        statement="With ERC the entropy curve is at least a tenth less rough than with its base objective alone.",
        scope="Tabular policy on modular sum starting peaked, learning rate 16. Roughness is the standard deviation of "
        "the curve's second difference, which a steady decline does not have.",
        unit="nats per token",
        setting=PEAKED,
        arms=ARMS,
        estimand=contrast(roughness("exact/token_entropy"), of="erc", minus="dapo", times=0.9),
        direction="less",
        threshold=0.0,
        planted=-0.0015,
        acts=(("erc", "erc/masked_fraction"),),
        curves=("exact/token_entropy", "exact/kl_step"),
        falsifier=NO_BAND,
        recorded="reproduced",
        notes=(
            "ERC also takes smaller steps, and a smaller step is smoother by itself; this claim does not separate the "
            "two.",
        ),
    )
)
register(
    StatisticalClaim(
        id="erc/smaller-steps",
        paper=PAPER,
        title="Each iteration moves the policy less",
        source=f"{CITATION}, abstract: a global constraint on the policy's drift; mechanism M6",
        statement="With ERC the divergence between the policies before and after an iteration is at least a tenth "
        "smaller than with its base objective alone.",
        scope="Tabular policy on modular sum starting peaked, learning rate 16; exact divergence of whole responses.",
        unit="nats per response",
        setting=PEAKED,
        arms=ARMS,
        estimand=contrast(average("exact/kl_step"), of="erc", minus="dapo", times=0.9),
        direction="less",
        threshold=0.0,
        planted=-0.0012,
        acts=(("erc", "erc/masked_fraction"),),
        curves=("exact/kl_step", "exact/regret"),
        falsifier=NO_BAND,
        recorded="reproduced",
    )
)
