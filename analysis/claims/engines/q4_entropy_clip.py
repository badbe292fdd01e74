"""Q4. What Clip_B and Clip_V say about a token and entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.claims.engines import PAPER, PPO
from analysis.judging.claim import ExactClaim, Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, average, difference, final
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from testbed.batch import TokenBatch
from testbed.objectives import make_objective

file_entry(
    Entry(
        number="Q4",
        source=PAPER,
        statement="Clip_B and Clip_V: S = q(H + log q) says how much a token's rise costs entropy; dropping the few "
        "tokens of A < 0 at which it is lowest slows the decay of entropy without loss of accuracy.",
        status="toy",
        reason="Clip_V is judged through the score alone: a ten-thousandth of the tokens of a toy rollout is one.",
    )
)


def _entropy(logits: Tensor) -> Tensor:
    log_policy = logits.log_softmax(-1)
    return -(log_policy.exp() * log_policy).sum(-1)


def _slope_error(with_entropy: bool) -> float:
    """Largest difference between -S and dH/dz of the sampled token's logit, over all tokens of random policies."""
    logits = torch.randn(8, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    logits.requires_grad_()
    (exact,) = torch.autograd.grad(_entropy(logits).sum(), logits)
    log_policy = logits.detach().log_softmax(-1)
    score = log_policy.exp() * (with_entropy * _entropy(logits.detach()).unsqueeze(-1) + log_policy)
    return float((exact + score).abs().max())


register(
    ExactClaim(
        id="engines/entropy-per-token",
        paper=PAPER,
        judges=("Q4",),
        title="Raising a token's logit costs entropy in proportion to S",
        source="arXiv 2602.03392, as Trinity-RFT 0.6 computes it; this project's single-token statement",
        statement="To first order, raising the logit of one token by ε changes the entropy of the policy by -ε·q(H + "
        "log q).",
        scope="Exact, in float64, for softmax policies over 30 tokens.",
        unit="nats per unit of a logit",
        measure=lambda: _slope_error(True),
        tolerance=1e-12,
        falsifier=Falsifier("The entropy is left out of the score: q·log q.", measure=lambda: _slope_error(False)),
        recorded="reproduced",
    )
)


def _wrong_side(mu: float, rises: bool) -> float:
    """Share of the tokens that clip_b drops whose update would have moved entropy the other way than it says.

    A token of A < 0 is dropped where S is far below the mean: its logit falls, and with S < 0 so does entropy.
    """
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(64, 12, generator=generator, dtype=torch.float64)
    log_policy = logits.log_softmax(-1)
    chosen = torch.multinomial(log_policy.exp(), 8, replacement=True, generator=generator)
    old = log_policy.gather(-1, chosen)
    entropies = _entropy(logits).unsqueeze(-1).expand_as(old)
    batch = TokenBatch(
        log_probs=old, old_log_probs=old, advantages=-torch.ones_like(old), mask=old < 0, old_entropies=entropies
    )
    dropped = make_objective("clip_b", mu=mu).dropped(batch)  # type: ignore[attr-defined]
    slope = old.exp() * (entropies + old)
    lowers = (slope > 0) if rises else (slope < 0)
    return float((dropped & ~lowers).sum() / dropped.sum())


register(
    ExactClaim(
        id="engines/clip-b-drops-what-lowers-entropy",
        paper=PAPER,
        judges=("Q4",),
        title="What Clip_B drops would have lowered entropy",
        source="arXiv 2602.03392; Trinity-RFT 0.6",
        statement="Every token of A < 0 that lies more than one standard deviation below the mean score has S < 0, so "
        "that its update would have lowered entropy.",
        scope="512 tokens sampled from 64 softmax policies over 12 tokens, μ = 1; at the published μ = 2.5 fewer are "
        "dropped, and the same holds of them.",
        unit="share of dropped tokens",
        measure=lambda: max(_wrong_side(1.0, False), _wrong_side(2.5, False)),
        tolerance=0.0,
        falsifier=Falsifier("Tokens with S > 0 are expected.", measure=lambda: _wrong_side(1.0, True)),
        recorded="reproduced",
    )
)

SETTING = MODULAR_SUM
CLIP_B = {"objective": "clip_b(mu=1.0)"}
TOY = (
    "Tabular policy on modular sum, learning rate 16. At the published μ = 2.5 no token of this environment is that "
    "extreme, so μ is 1, which drops one token in twenty."
)

register(
    StatisticalClaim(
        id="engines/clip-b-keeps-entropy",
        paper=PAPER,
        judges=("Q4",),
        title="Clip_B slows the decay of entropy",
        source="arXiv 2602.03392, abstract",
        statement="Dropping the tokens of A < 0 with the lowest score raises the entropy at equal reward by at least "
        "0.2 nats.",
        scope=f"{TOY} Entropy of a response where the exact return first reaches 0.8.",
        unit="nats per response",
        setting=SETTING,
        arms={"clip_b": CLIP_B, "ppo": PPO},
        estimand=difference(at_matched("exact/entropy", "exact/return", 0.8), of="clip_b", minus="ppo"),
        direction="greater",
        threshold=0.2,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="clip_b", minus="ppo")),
        controls=(difference(AT_DIVERGENCE, of="clip_b", minus="ppo"),),
        acts=(("clip_b", "mask/fraction"),),
        falsifier=Falsifier("Nothing is dropped: μ = 100.", {"clip_b": {"objective": "clip_b(mu=100.0)"}}),
        recorded="reproduced",
        seeds=24,
    )
)

register(
    StatisticalClaim(
        id="engines/clip-b-costs-no-reward",
        paper=PAPER,
        judges=("Q4",),
        title="Clip_B costs no accuracy",
        source="arXiv 2602.03392, abstract",
        statement="Dropping them changes the mean regret by less than 0.02.",
        scope=TOY,
        unit="reward",
        setting=SETTING,
        arms={"clip_b": CLIP_B, "ppo": PPO},
        estimand=difference(average("exact/regret"), of="clip_b", minus="ppo"),
        direction="equivalent",
        threshold=0.02,
        planted=0.0,
        acts=(("clip_b", "mask/fraction"),),
        curves=("exact/regret", "mask/fraction"),
        falsifier=Falsifier(
            "It learns at half the rate.", {"clip_b": {"objective": "clip_b(mu=1.0)", "learning_rate": 8.0}}
        ),
        recorded="refuted",
        seeds=24,
    )
)
