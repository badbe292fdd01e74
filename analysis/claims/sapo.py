"""Claims of SAPO: a smooth gate on every token."""

from __future__ import annotations

import numpy as np

from analysis.claims._claim import ExactClaim, Falsifier, StatisticalClaim, register
from analysis.claims._estimands import average, contrast, difference, final
from analysis.claims._settings import STALE
from analysis.theory.gradient_weights import Tokens, autograd_update

PAPER = "SAPO"
CITATION = "Gao et al., arXiv 2511.20347v2"

register(
    StatisticalClaim(
        id="sapo/staleness-reward",
        paper=PAPER,
        title="Higher reward than GSPO on stale data",
        source=f"{CITATION}, statement S1",
        statement="With rollouts eight iterations old, SAPO's final reward exceeds GSPO's by at least 0.05.",
        scope="Tabular policy on modular sum with 12 tokens, learning rate 16 for both, GSPO at its paper's "
        "clip range. "
        "GSPO's range is meant for a language model's ratios; here most responses are clipped, so this compares the "
        "published settings, not the best setting of each.",
        unit="reward",
        setting=STALE,
        arms={"sapo": {"objective": "sapo"}, "gspo": {"objective": "gspo"}, "grpo": {"objective": "grpo"}},
        estimand=difference(final("exact/return"), of="sapo", minus="gspo"),
        direction="greater",
        threshold=0.05,
        acts=(("gspo", "clip/fraction"),),
        curves=("exact/regret", "exact/kl_step"),
        falsifier=Falsifier(
            "SAPO's gate is closed at the smallest deviation: τ = 100 for both signs.",
            {"sapo": {"objective": "sapo(tau_pos=1000.0,tau_neg=1000.0)"}},
        ),
        recorded="reproduced",
        notes=("An independent report (X1) finds the opposite at a staleness of 32 and more with a language model.",),
    )
)
register(
    StatisticalClaim(
        id="sapo/tau-order",
        paper=PAPER,
        title="A larger τ for negatives is more stable",
        source=f"{CITATION}, statement S2",
        statement="With τ_neg = 0.95 the divergence per iteration is at least two percent larger than with 1.05.",
        scope="Tabular policy on modular sum with 12 tokens and rollouts eight iterations old. A vocabulary of "
        "16 has no "
        "tail of irrelevant tokens, which is the paper's reason for the asymmetry.",
        unit="nats per response",
        setting=STALE,
        arms={"τ_neg 0.95": {"objective": "sapo(tau_neg=0.95)"}, "τ_neg 1.05": {"objective": "sapo(tau_neg=1.05)"}},
        estimand=contrast(average("exact/kl_step"), of="τ_neg 0.95", minus="τ_neg 1.05", times=1.02),
        direction="greater",
        threshold=0.0,
        planted=0.001,
        curves=("exact/kl_step", "exact/regret"),
        falsifier=Falsifier(
            "The first arm's τ_neg is raised to 4.", {"τ_neg 0.95": {"objective": "sapo(tau_neg=4.0)"}}
        ),
        recorded="refuted",
        notes=("The two gates differ by 2.3 % at a ratio of 2 and by less closer to 1.",),
    )
)


def _clean_token_loss(objective: str) -> float:
    """How much of their gradient clean tokens lose when one token of their response is an outlier, at most 1."""
    clean, outlier = np.log(np.full((1, 4), 1.001)), np.log(np.array([[1.001, 1.001, 1.001, 3.0]]))
    ones = np.ones((1, 4))
    old = np.full((1, 4), -2.0)

    def weights(ratios: np.ndarray) -> np.ndarray:
        tokens = Tokens(old + ratios, old, ones, ones.astype(bool), ones, ones)
        return autograd_update(objective, tokens)[0, :3]

    return float(np.abs(weights(outlier) / weights(clean) - 1).max())


register(
    ExactClaim(
        id="sapo/outlier-tokens",
        paper=PAPER,
        title="One outlier does not silence its response",
        source=f"{CITATION}, comparison with sequence-level clipping",
        statement="Under SAPO an outlier token changes nothing about the gradient of the other tokens of its response.",
        scope="Exact, on one response of four tokens with positive advantage, three at ratio 1.001 and one at 3. Under "
        "GSPO with its published range the same outlier removes the gradient of all four.",
        unit="share of the clean tokens' gradient",
        measure=lambda: _clean_token_loss("sapo"),
        tolerance=1e-12,
        falsifier=Falsifier(
            "GSPO, whose ratio belongs to the whole response, takes SAPO's place.",
            measure=lambda: _clean_token_loss("gspo(clip_low=0.01,clip_high=0.01)"),
        ),
        recorded="reproduced",
    )
)
