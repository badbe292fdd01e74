"""The claims that have a toy and a language-model version, and the scale each kind of device is asked for.

Settings of the language-model side were chosen on seeds from 101 on; seeds from 0 on judge.
"""

from __future__ import annotations

from typing import Any

from analysis.claims import StatisticalClaim
from analysis.claims.sapo import ROUTED, ROUTED_SCOPE
from analysis.judging.claim import Falsifier, Tuning
from analysis.judging.estimands import Estimand, at_matched, average, contrast, difference, final, in_order
from analysis.transfer.comparison import LanguageModelClaim, Scale, TransferClaim
from analysis.transfer.training import RECENT_REWARD, SUCCESS
from testbed.errors import ConfigError, UnknownNameError
from testbed.finetune import TaskSettings, WarmStartSettings

__all__ = ["SCALES", "TRANSFERS", "choose", "transfer_names"]

_SUMS = TaskSettings(source="arithmetic(level=1,count=64)")
_SUMS_AND_DIFFERENCES = "arithmetic(level=2,count={count})"
_WARM_START = WarmStartSettings(target=0.2, ceiling=0.3, learning_rate=0.002, check_every=10)
_LONGER_WARM_START = WarmStartSettings(target=0.2, ceiling=0.3, learning_rate=0.002, check_every=40, probes=512)
SCALES = {
    "cpu": Scale(
        device="cpu",
        models={"dense": "qwen2-0.1m", "experts": "qwen3-moe-0.1m"},
        warm_starts={"dense": _WARM_START, "experts": _WARM_START},
        learning_rates={"dense": 2e-4, "experts": 2e-4},
        train=_SUMS,
        test=_SUMS,
        responses=128,
        length=12,
    ),
    "cuda": Scale(
        device="cuda",
        models={"dense": "qwen2-1m", "experts": "qwen3-moe-1m"},
        warm_starts={"dense": _LONGER_WARM_START, "experts": _LONGER_WARM_START},
        learning_rates={"dense": 2e-4, "experts": 2e-4},
        train=TaskSettings(source=_SUMS_AND_DIFFERENCES.format(count=2000)),
        test=TaskSettings(source=_SUMS_AND_DIFFERENCES.format(count=128), split="test"),
        responses=256,
        length=28,
        samples=4,
    ),
}
"""By device."""
SEEDS = 8
"""Seeds of the language-model side; twice as many where eight and the next eight did not agree, or might not."""
DENSE = "A small Qwen2 on arithmetic, from a success of 20 to 30 % on; Adam"
EXPERTS = DENSE.replace("Qwen2", "Qwen3 mixture of eight experts")

# -- CE-GPPO -------------------------------------------------------------------------------------------------------

BETAS = {"(1, ½)": (1.0, 0.5), "(¾, 1)": (0.75, 1.0), "(½, 1)": (0.5, 1.0), "(0, 1)": (0.0, 1.0)}


def _betas(below: float, above: float) -> dict[str, Any]:
    return {"objective": f"ce_gppo(beta1={below},beta2={above})"}


ENTROPY_ORDER = TransferClaim(
    name="entropy-order",
    toy="ce-gppo/order-of-decay",
    language_model=LanguageModelClaim(
        id="llm/entropy-order",
        paper="CE-GPPO",
        title="The order of entropy decay under (β₁, β₂)",
        source="Su et al., arXiv 2509.20712v5, statement C2",
        statement="At equal reward the entropy rises in the order (β₁, β₂) = (1, ½), (¾, 1), (½, 1), (0, 1).",
        scope=f"{DENSE}. Entropy per token of the rollout where the mean reward of four rollouts first reaches "
        "0.35. The smallest of the three steps is judged. The runs were made twice as long when three of the judging "
        "seeds had not reached that reward.",
        unit="nats per token",
        setting={"updates": 256},
        arms={name: _betas(*betas) for name, betas in BETAS.items()},
        estimand=in_order(at_matched("entropy/mean", RECENT_REWARD, 0.35), list(BETAS)),
        curves=("entropy/mean", "reward/mean", "band/outside_fraction"),
        statistic="smallest step",
        direction="greater",
        threshold=0.0,
        planted=0.05,
        acts=(("(1, ½)", "band/outside_fraction"),),
        falsifier=Falsifier(
            "The two coefficients of every setting are exchanged.",
            {name: _betas(above, below) for name, (below, above) in BETAS.items()},
        ),
        recorded="inconclusive",
        seeds=SEEDS,
    ),
    difference="the toy's entropy and reward are exact, per response and per policy; the language model's are sampled, "
    "per token. SGD there, Adam here.",
)

# -- ERC -----------------------------------------------------------------------------------------------------------


def _mask_share_over_clip_share(times: float) -> Estimand:
    masked, clipped = average("erc/masked_fraction"), average("clip/fraction")
    return Estimand(
        f"[erc] {masked.description} - {times:g} × [dapo] {clipped.description}",
        lambda runs: masked.read(runs["erc"]) - times * clipped.read(runs["dapo"]),
        frozenset({"erc", "dapo"}),
    )


MASK_SHARE = TransferClaim(
    name="mask-share",
    toy="erc/mask-share",
    language_model=LanguageModelClaim(
        id="llm/mask-share",
        paper="ERC",
        title="ERC's mask share against the clip share",
        source="Su et al., arXiv 2512.05591, statement E2",
        statement="ERC masks more than ten times as many tokens as the ratio clip of its base objective clips.",
        scope=f"{DENSE}, with updates so small that the clip acts on about one token in a thousand.",
        unit="share of response tokens",
        setting={"rate": 0.1},
        arms={"erc": {"objective": "erc"}, "dapo": {"objective": "dapo"}},
        estimand=_mask_share_over_clip_share(10.0),
        curves=("erc/masked_fraction", "clip/fraction", "entropy/mean"),
        direction="greater",
        threshold=0.0,
        planted=0.04,
        acts=(("erc", "erc/masked_fraction"),),
        falsifier=Falsifier(
            "The band is opened so far that nothing is ever masked.",
            {"erc": {"objective": "erc(beta_low=0.999,beta_high=1000.0)"}},
        ),
        recorded="inconclusive",
        seeds=2 * SEEDS,
    ),
    difference="every state of the toy starts with one token of probability 0.9; the language model's certainty is "
    "what its warm start left.",
)

# -- DCPO ----------------------------------------------------------------------------------------------------------

CLIP_RATIO = TransferClaim(
    name="clip-ratio",
    toy="dcpo/token-clip-ratio",
    language_model=LanguageModelClaim(
        id="llm/clip-ratio",
        paper="DCPO",
        title="DCPO's token clipping ratio against GRPO's",
        source="Yang et al., arXiv 2509.02333v2, statement D5",
        statement="DCPO clips several times fewer tokens than GRPO: GRPO's token clipping ratio exceeds five times "
        "DCPO's.",
        scope=f"{DENSE}, four passes over each rollout; equal reduction and advantage.",
        unit="share of response tokens",
        setting={},
        arms={
            "grpo": {"objective": "grpo(reduction=token_mean)"},
            "dcpo": {"objective": "dcpo(reduction=token_mean)"},
        },
        estimand=contrast(average("clip/fraction"), of="grpo", minus="dcpo", times=5.0),
        curves=("clip/fraction", "reward/mean"),
        direction="greater",
        threshold=0.0,
        planted=0.02,
        acts=(("grpo", "clip/fraction"),),
        falsifier=Falsifier(
            "The cap on the upper bound is lowered to 1.05, which takes away the room that rare tokens are given.",
            {"dcpo": {"objective": "dcpo(reduction=token_mean,ratio_max=1.05)"}},
        ),
        recorded="refuted",
        seeds=2 * SEEDS,
    ),
    difference="the share of clipped tokens that are rare decides how much DCPO's wider bounds save, and it is not "
    "set to be equal.",
)

# -- staleness -----------------------------------------------------------------------------------------------------

AGES = {
    str(number): {"objective": "grpo(reduction=token_mean)", "minibatches": number, "passes": 1}
    for number in (2, 4, 8, 16)
}
STALENESS = TransferClaim(
    name="staleness",
    toy="baselines/staleness-clips-in-order",
    language_model=LanguageModelClaim(
        id="llm/staleness",
        paper="Baselines",
        title="Staleness and the clip share",
        source="Mechanism M10; BAPO, arXiv 2510.18927v1, statement B2",
        statement="Every doubling of the number of updates a rollout serves raises the share of clipped tokens.",
        scope=f"{DENSE}; one pass, 2, 4, 8 and 16 mini-batches a rollout, the same number of updates for all.",
        unit="share of response tokens",
        setting={"updates": 64, "share": 0.25},
        arms=AGES,
        estimand=in_order(average("clip/fraction"), list(AGES)),
        curves=("clip/fraction", "ratio/log_abs_mean", "reward/mean"),
        statistic="smallest step",
        direction="greater",
        threshold=0.0,
        planted=0.005,
        acts=(("2", "clip/fraction"),),
        falsifier=Falsifier("The oldest rollouts are replaced by the freshest.", {"16": AGES["2"]}),
        recorded="reproduced",
        seeds=SEEDS,
    ),
    difference="the toy's rollouts come from the policy of that many iterations ago; the language model's age while "
    "their mini-batches wait for their turn, so that ages are mixed in every rollout. The toy asks for two percentage "
    "points a doubling, the language model, which clips far less at any age, only for a rise.",
)

# -- SAPO ----------------------------------------------------------------------------------------------------------

CLOSED = "sapo(tau_pos=1000.0,tau_neg=1000.0)"
BEST_RATES = {"sapo": 5.0, "gspo": 10.0}
"""Of 1, 2.5, 5, 10 and 20, by the mean success after training on seeds 101 to 104 at the scale of a CPU."""
EXPERTS_REWARD = TransferClaim(
    name="experts-reward",
    toy=StatisticalClaim(
        id="toy/experts-reward",
        paper="SAPO",
        title="SAPO against GSPO with a mixture of experts",
        source="Gao et al., arXiv 2511.20347v2, statements S1 and S4",
        statement="Without routing replay SAPO's final reward exceeds GSPO's by at least 0.05, each at its best "
        "learning rate.",
        scope=f"{ROUTED_SCOPE} No replay; the learning rates are tuned.",
        unit="reward",
        setting=ROUTED,
        arms={"sapo": {"objective": "sapo"}, "gspo": {"objective": "gspo"}},
        estimand=difference(final("exact/return"), of="sapo", minus="gspo"),
        direction="greater",
        threshold=0.05,
        tuning=Tuning((0.1, 0.4, 0.8, 1.6), final("exact/return")),
        level=0.90,
        acts=(("gspo", "clip/fraction"),),
        falsifier=Falsifier(
            "SAPO's gate is closed at the smallest deviation: τ = 1000 for both signs.", {"sapo": {"objective": CLOSED}}
        ),
        recorded="reproduced",
    ),
    language_model=LanguageModelClaim(
        id="llm/experts-reward",
        paper="SAPO",
        title="SAPO against GSPO with a mixture of experts",
        source="Gao et al., arXiv 2511.20347v2, statements S1 and S4",
        statement="Without routing replay SAPO's success after training exceeds GSPO's by at least 0.05, each at its "
        "best learning rate.",
        scope=f"{EXPERTS}; four mini-batches a rollout, no routing replay. The rates were found at the scale of a CPU.",
        unit="success",
        setting={"model": "experts", "passes": 1, "minibatches": 4, "updates": 96},
        arms={name: {"objective": name, "rate": rate} for name, rate in BEST_RATES.items()},
        estimand=difference(final(SUCCESS), of="sapo", minus="gspo"),
        curves=("reward/mean", "entropy/mean", "ratio/log_abs_mean"),
        direction="greater",
        threshold=0.05,
        acts=(("gspo", "clip/fraction"),),
        falsifier=Falsifier(
            "SAPO's gate is closed at the smallest deviation: τ = 1000 for both signs.",
            {"sapo": {"objective": CLOSED, "rate": BEST_RATES["sapo"]}},
        ),
        recorded="refuted",
        seeds=SEEDS,
    ),
    difference="the toy's sampler routes differently from its trainer; the language model's routes alike until the "
    "first update.",
)

TRANSFERS = (ENTROPY_ORDER, MASK_SHARE, CLIP_RATIO, STALENESS, EXPERTS_REWARD)
"""Every comparison, in the order of the table."""


def transfer_names() -> list[str]:
    """The comparisons' names, in the order of the table."""
    return [claim.name for claim in TRANSFERS]


def choose(names: list[str], device: str | None) -> tuple[list[TransferClaim], Scale]:
    """The comparisons of these names (none: all) and the scale of a device (`None`: a GPU where there is one).

    Raises:
        UnknownNameError: no such comparison.
        ConfigError: no such device.
    """
    import torch

    by_name = {claim.name: claim for claim in TRANSFERS}
    for name in names:
        if name not in by_name:
            raise UnknownNameError("transfer claim", name, by_name)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen not in SCALES:
        raise ConfigError(f"device is {chosen!r}; expected one of {', '.join(SCALES)}")
    return [by_name[name] for name in names] or list(TRANSFERS), SCALES[chosen]
