"""What an objective does with a batch of recorded tokens: one definition per column of the replay table.

Signs: A > 0 is `positive`, A < 0 `negative`; r > 1 is `above`, r < 1 `below`. A token is *stopped* when it has an
advantage and no gradient. Mass is |∂(Σ ℓ)/∂log p| of a token, what |r·A| is without any clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import effective_sample_size
from testbed.objectives import Objective

__all__ = ["CLASSES", "MEASURES", "Tokens", "measure", "tokens_of"]

CLASSES = ("positive_low", "positive_high", "negative_low", "negative_high")
"""Sign of A, and the token's probability against the exact threshold p*: raised, the tokens below it raise entropy."""

MEASURES: dict[str, str] = {
    "loss": "the loss that training would have minimised; of a thinned record the recorded prompts' part of it",
    "gradient": "√Σ (∂L/∂log p)² over the recorded tokens",
    "stopped": "share of response tokens with an advantage and no gradient",
    "stopped/positive_above": "the part of it with A > 0 and r > 1: an upper bound held them",
    "stopped/positive_below": "the part with A > 0 and r ≤ 1",
    "stopped/negative_above": "the part with A < 0 and r ≥ 1",
    "stopped/negative_below": "the part with A < 0 and r < 1: a lower bound held them",
    "mass": "Σ |∂ℓ/∂log p| divided by Σ |rA|: what is left of the unclipped push, 1 if all of it",
    **{f"mass/{name}": f"the part of it on tokens of the class {name.replace('_', ', ')}" for name in CLASSES},
    **{f"naive_mass/{name}": f"the same with e^-H in place of p*, class {name.replace('_', ', ')}" for name in CLASSES},
    "mass/longest_third": "share of Σ |∂L/∂log p| on the longest third of the responses",
    "entropy/predicted": "Σ (∂L/∂log p)(φ - κ), φ = p(log p + H): first-order change of entropy per unit of step size, "
    "summed over the positions as if each had logits of its own",
    "weight/largest": "the largest |∂L/∂log p| of a token divided by their mean",
    "ratio/effective_sample_size": "(Σ r)²/(N Σ r²) over the response tokens; 1 where all ratios are equal",
    "kl/sampler": "mean of log p_sampler - log q",
}
"""Column to what it says."""


@dataclass(frozen=True)
class Tokens:
    """What of a stack of batches `(N, B, T)` does not depend on the objective.

    Attributes:
        batch: the tokens.
        probabilities: p, `(N, B, T)`.
        below: whether p is below the exact threshold p*, or `None` where entropies or κ are missing.
        below_naive: whether p is below e^-H, or `None` where entropies are missing.
        slope: φ - κ, by how much raising the token's logit lowers entropy, or `None`.
        unclipped: |rA|, 0 where masked.
    """

    batch: TokenBatch
    probabilities: Tensor
    below: Tensor | None
    below_naive: Tensor | None
    slope: Tensor | None
    unclipped: Tensor


def tokens_of(batch: TokenBatch) -> Tokens:
    """What can be said about a stack of batches `(N, B, T)` before any objective is asked."""
    log_probs = batch.log_probs.detach()
    probabilities = log_probs.exp()
    below = below_naive = slope = None
    if batch.entropies is not None:
        entropies = batch.entropies.detach()
        surprise = log_probs + entropies
        below_naive = surprise < 0
        if batch.kappas is not None:
            # φ is negative below e^-H and rises beyond, so φ < κ exactly below one probability: that is p*.
            slope = probabilities * surprise - batch.kappas
            below = slope < 0
    unclipped = (batch.ratio.detach() * batch.advantages).abs().where(batch.mask, 0)
    return Tokens(batch, probabilities, below, below_naive, slope, unclipped)


def measure(objective: Objective, tokens: Tokens) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What an objective does with a stack of batches.

    Returns:
        Every measure `(N,)`, NaN where the record lacks what it needs; ∂L/∂log p of the loss, and of the plain sum of
        token losses, `(N, B, T)` each, 0 where masked.
    """
    batch = tokens.batch
    leaf = batch.log_probs.detach().clone().requires_grad_()
    given = batch.with_current(leaf, batch.entropies)
    loss = objective.loss(given)
    (of_loss,) = torch.autograd.grad(loss.sum(), leaf)
    (weights,) = torch.autograd.grad(objective.token_loss(given.trimmed()).sum(), leaf)
    of_loss, weights = of_loss.where(batch.mask, 0), weights.where(batch.mask, 0)
    mass = weights.abs()
    found = {"loss": loss.detach(), "gradient": of_loss.square().sum((-2, -1)).sqrt()}
    found |= _stopped(mass, tokens)
    found |= _masses(mass, tokens)
    share = of_loss.abs()
    found["mass/longest_third"] = _longest_third(share, batch)
    if tokens.slope is None:
        found["entropy/predicted"] = torch.full_like(found["loss"], torch.nan)
    else:
        found["entropy/predicted"] = (of_loss * tokens.slope).sum((-2, -1))
    counts = batch.mask.sum((-2, -1))
    found["weight/largest"] = share.amax((-2, -1)) / (share.sum((-2, -1)) / counts)
    found["ratio/effective_sample_size"] = effective_sample_size(batch.log_ratio, batch.mask) / counts
    if batch.sampler_log_probs is None:
        found["kl/sampler"] = torch.full_like(found["loss"], torch.nan)
    else:
        found["kl/sampler"] = (batch.sampler_log_probs - batch.old_log_probs).sum((-2, -1)) / counts
    return found, of_loss, weights


def _stopped(mass: Tensor, tokens: Tokens) -> dict[str, Tensor]:
    batch = tokens.batch
    positive, negative = batch.advantages > 0, batch.advantages < 0
    above = batch.ratio.detach() > 1
    below = batch.ratio.detach() < 1
    stopped = batch.mask & (batch.advantages != 0) & (mass == 0)
    counts = batch.mask.sum((-2, -1))
    parts = {
        "stopped": stopped,
        "stopped/positive_above": stopped & positive & above,
        "stopped/positive_below": stopped & positive & ~above,
        "stopped/negative_above": stopped & negative & ~below,
        "stopped/negative_below": stopped & negative & below,
    }
    return {name: chosen.sum((-2, -1)) / counts for name, chosen in parts.items()}


def _masses(mass: Tensor, tokens: Tokens) -> dict[str, Tensor]:
    whole = tokens.unclipped.sum((-2, -1))
    positive, negative = tokens.batch.advantages > 0, tokens.batch.advantages < 0
    found = {"mass": mass.sum((-2, -1)) / whole}
    for prefix, below in (("mass", tokens.below), ("naive_mass", tokens.below_naive)):
        for name in CLASSES:
            sign, side = name.split("_")
            if below is None:
                found[f"{prefix}/{name}"] = torch.full_like(whole, torch.nan)
                continue
            chosen = (positive if sign == "positive" else negative) & (below if side == "low" else ~below)
            found[f"{prefix}/{name}"] = mass.where(chosen, 0).sum((-2, -1)) / whole
    return found


def _longest_third(share: Tensor, batch: TokenBatch) -> Tensor:
    """The part of the gradient on the third of the responses that is longest; ties are cut in order."""
    lengths = batch.mask.sum(-1)
    present = (lengths > 0).sum(-1, keepdim=True)
    places = torch.argsort(-lengths, dim=-1, stable=True).argsort(-1)
    longest = places < (present / 3).ceil()
    return share.sum(-1).where(longest, 0).sum(-1) / share.sum((-2, -1))
