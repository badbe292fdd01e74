"""Losses as people wrote them, each wrong in one way that users of training engines reported, and what to call it.

Every entry: a name, the loss, the objective it was meant to be, and words of the likely mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class WrongLoss(NamedTuple):
    """A loss, what it was meant to be, and a part of the sentence that says what is wrong with it."""

    name: str
    loss: Callable[..., Tensor]
    objective: str
    mistake: str


def ratio_of(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    return torch.exp(log_probs - old_log_probs)


def surrogate(ratio: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def token_mean(losses: Tensor, mask: Tensor) -> Tensor:
    return (losses * mask).sum() / mask.sum()


def sequence_mean(losses: Tensor, mask: Tensor) -> Tensor:
    return ((losses * mask).sum(-1) / mask.sum(-1)).mean()


def sign(log_probs, old_log_probs, advantages, mask):
    return sequence_mean(-surrogate(ratio_of(log_probs, old_log_probs), advantages), mask)


def wrong_side_of_the_minimum(log_probs, old_log_probs, advantages, mask):
    ratio = ratio_of(log_probs, old_log_probs)
    return -torch.maximum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


def no_minimum(log_probs, old_log_probs, advantages, mask):
    return -ratio_of(log_probs, old_log_probs).clamp(0.8, 1.2) * advantages


def no_clip(log_probs, old_log_probs, advantages, mask):
    return token_mean(-ratio_of(log_probs, old_log_probs) * advantages, mask)


def upper_clip_alone(log_probs, old_log_probs, advantages, mask):
    ratio = ratio_of(log_probs, old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(max=1.2) * advantages)


def lower_clip_alone(log_probs, old_log_probs, advantages, mask):
    ratio = ratio_of(log_probs, old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(min=0.8) * advantages)


def band_whatever_the_sign(log_probs, old_log_probs, advantages, mask):
    ratio = ratio_of(log_probs, old_log_probs)
    return torch.where((ratio < 0.8) | (ratio > 1.2), 0, -ratio * advantages)


def ratio_against_itself(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, log_probs.detach()), advantages)


def ratio_upside_down(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(old_log_probs, log_probs), advantages)


def exponential_forgotten(log_probs, old_log_probs, advantages, mask):
    return surrogate(log_probs - old_log_probs, advantages)


def mask_forgotten(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs), advantages, high=0.28).mean()


def padded_width(log_probs, old_log_probs, advantages, mask):
    return (surrogate(ratio_of(log_probs, old_log_probs), advantages, high=0.28) * mask).mean()


def another_mean(log_probs, old_log_probs, advantages, mask):
    return token_mean(surrogate(ratio_of(log_probs, old_log_probs), advantages), mask)


def sum_for_mean(log_probs, old_log_probs, advantages, mask):
    return (surrogate(ratio_of(log_probs, old_log_probs), advantages, high=0.28) * mask).sum()


def divided_by_length_twice(log_probs, old_log_probs, advantages, mask):
    losses = surrogate(ratio_of(log_probs, old_log_probs), advantages) / mask.sum(-1, keepdim=True)
    return sequence_mean(losses, mask)


def divided_by_responses_too(log_probs, old_log_probs, advantages, mask):
    losses = surrogate(ratio_of(log_probs, old_log_probs), advantages, high=0.28)
    return token_mean(losses, mask) / len(mask)


def local_whitening(log_probs, old_log_probs, advantages, mask):
    known = advantages[mask]
    if len(known) > 1:
        advantages = (advantages - known.mean()) / (known.std() + 1e-8)
    return surrogate(ratio_of(log_probs, old_log_probs), advantages)


def sign_of_the_advantage_lost(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs), advantages.abs())


def neighbours_advantage(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs), advantages.roll(1, 0))


def shifted_by_one(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs.roll(1, -1), old_log_probs), advantages)


def dual_clip_on_both_signs(log_probs, old_log_probs, advantages, mask):
    cap = 3 * advantages.abs()
    tau = torch.where(advantages > 0, 1.0, 1.05)
    return (-4 / tau * torch.sigmoid(tau * (ratio_of(log_probs, old_log_probs) - 1)) * advantages).clamp(-cap, cap)


def dual_clip_nobody_asked_for(log_probs, old_log_probs, advantages, mask):
    losses = surrogate(ratio_of(log_probs, old_log_probs), advantages, high=0.28)
    return torch.where(advantages < 0, torch.minimum(losses, -3 * advantages), losses)


def equal_bounds(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs), advantages)


def swapped_bounds(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs), advantages, low=0.28, high=0.2)


def no_stop_gradient(log_probs, old_log_probs, advantages, mask):
    return -ratio_of(log_probs, old_log_probs).clamp(max=1.2) * advantages * log_probs


def absolute_ceiling(log_probs, old_log_probs, advantages, mask):
    return -ratio_of(log_probs, old_log_probs).clamp(max=0.2).detach() * advantages * log_probs


def arithmetic_mean_of_ratios(log_probs, old_log_probs, advantages, mask):
    ratio = ((ratio_of(log_probs, old_log_probs) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)).expand_as(
        mask
    )
    return surrogate(ratio, advantages, low=3e-4, high=4e-4)


def token_ratio_under_sequence_bounds(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs), advantages, low=3e-4, high=4e-4)


def penalty_of_the_wrong_sign(log_probs, old_log_probs, advantages, mask, ref_log_probs):
    difference = ref_log_probs - log_probs
    return surrogate(ratio_of(log_probs, old_log_probs), advantages) - 0.04 * (difference.expm1() - difference)


def detached(log_probs, old_log_probs, advantages, mask):
    return surrogate(ratio_of(log_probs, old_log_probs).detach(), advantages)


def temperatures_swapped(log_probs, old_log_probs, advantages, mask):
    ratio = ratio_of(log_probs, old_log_probs)
    tau = torch.where(advantages > 0, 1.05, 1.0)
    return -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages


WRONG = (
    WrongLoss("sign", sign, "grpo", "the sign"),
    WrongLoss("wrong side of the minimum", wrong_side_of_the_minimum, "grpo", "wrong side of the minimum"),
    WrongLoss("no minimum", no_minimum, "grpo", "without the minimum"),
    WrongLoss("no clip", no_clip, "dapo", "nothing is clipped"),
    WrongLoss("upper clip alone", upper_clip_alone, "grpo", "only the upper bound"),
    WrongLoss("lower clip alone", lower_clip_alone, "grpo", "only the lower bound"),
    WrongLoss("band whatever the sign", band_whatever_the_sign, "grpo", "whatever the sign of its advantage"),
    WrongLoss("ratio against itself", ratio_against_itself, "grpo", "against itself"),
    WrongLoss("ratio upside down", ratio_upside_down, "grpo", "upside down"),
    WrongLoss("exponential forgotten", exponential_forgotten, "grpo", "exp is missing"),
    WrongLoss("mask forgotten", mask_forgotten, "dapo", "the mask is forgotten"),
    WrongLoss("padded width", padded_width, "dapo", "padded width"),
    WrongLoss("another mean", another_mean, "grpo", "averaged by token_mean instead of seq_mean_token_mean"),
    WrongLoss("sum for mean", sum_for_mean, "dapo", "added up"),
    WrongLoss("divided by length twice", divided_by_length_twice, "grpo", "length of the response twice"),
    WrongLoss(
        "divided by responses too", divided_by_responses_too, "dapo", "divided by the number of responses as well"
    ),
    WrongLoss("local whitening", local_whitening, "grpo", "standardised once more"),
    WrongLoss("sign of the advantage lost", sign_of_the_advantage_lost, "grpo", "sign of the advantage is lost"),
    WrongLoss("neighbour's advantage", neighbours_advantage, "grpo", "neighbour's advantage"),
    WrongLoss("shifted by one", shifted_by_one, "grpo", "shifted by one"),
    WrongLoss(
        "dual clip on both signs", dual_clip_on_both_signs, "sapo", "dual clip at 3 is applied whatever the sign"
    ),
    WrongLoss(
        "dual clip nobody asked for", dual_clip_nobody_asked_for, "dapo", "dual clip at 3 that was not asked for"
    ),
    WrongLoss("equal bounds", equal_bounds, "dapo", "clip_low is used on both sides"),
    WrongLoss("swapped bounds", swapped_bounds, "dapo", "clip_low and clip_high are swapped"),
    WrongLoss("no stop-gradient", no_stop_gradient, "cispo", "stop-gradient is missing"),
    WrongLoss("absolute ceiling", absolute_ceiling, "cispo", "0.2 instead of 1 + 0.2"),
    WrongLoss("arithmetic mean of ratios", arithmetic_mean_of_ratios, "gspo", "arithmetic mean"),
    WrongLoss("token ratio under sequence bounds", token_ratio_under_sequence_bounds, "gspo", "token's own ratio"),
    WrongLoss(
        "penalty of the wrong sign",
        penalty_of_the_wrong_sign,
        "reference_kl(base=grpo,coefficient=0.04)",
        "what reference_kl adds has the wrong sign",
    ),
    WrongLoss("detached", detached, "grpo", "no gradient"),
    WrongLoss("temperatures swapped", temperatures_swapped, "sapo", "tau_pos and tau_neg are swapped"),
)
