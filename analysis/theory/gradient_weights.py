"""The gradient weight F of every objective in closed form, and what autograd makes of the shipped losses.

F is defined by ∂(Σ_t ℓ_it)/∂log p_it = -F_it·A_it, for advantages that are constant along a response. The
reduction multiplies it by a coefficient c_i that depends on counts only, so a whole loss is described by

    ∂L/∂log p_it = -c_i · F_it · A_it

    token_mean             c = 1/N
    seq_mean_token_mean    c_i = 1/(B n_i)
    seq_mean_token_sum     c = 1/B
    …_norm                 c = 1/(B·width)
    seq_sum_token_mean     c_i = 1/n_i

The closed forms below are written in numpy from the published equations and share no code with the losses. The two
covariance objectives have none: whether a token keeps its gradient depends on a rank, or a draw, over the batch. Nor
have wrappers that add a term without an advantage, such as a KL penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.theory._prediction import Prediction, register
from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective, make_objective, objective_names

__all__ = [
    "Tokens",
    "autograd_update",
    "gradient_weight",
    "objectives_with_closed_form",
    "random_tokens",
    "reduction_coefficient",
    "token_update",
]

FloatArray = NDArray[np.float64]


class Tokens(NamedTuple):
    """One batch as numpy arrays, all `(B, T)`; see `TokenBatch` for meaning and units."""

    log_probs: FloatArray
    """Current log-probability of the sampled token."""
    old_log_probs: FloatArray
    """The same under the policy in the ratio's denominator."""
    advantages: FloatArray
    """Constant along a response."""
    mask: NDArray[np.bool_]
    """True on response tokens."""
    entropies: FloatArray
    """Current full-vocabulary entropy."""
    old_entropies: FloatArray
    """The same at sampling time."""

    @property
    def ratio(self) -> FloatArray:
        """Token ratio r = p/q, 1 where masked."""
        return np.exp(np.where(self.mask, self.log_probs - self.old_log_probs, 0.0))

    @property
    def sequence_ratio(self) -> FloatArray:
        """Length-normalised ratio s_i = exp(mean_t z_it), `(B, 1)`."""
        logs = np.where(self.mask, self.log_probs - self.old_log_probs, 0.0)
        return np.exp(logs.sum(1, keepdims=True) / self.mask.sum(1, keepdims=True))

    @property
    def product_ratio(self) -> FloatArray:
        """Plain sequence ratio W_i = exp(Σ_t z_it), `(B, 1)`."""
        return np.exp(np.where(self.mask, self.log_probs - self.old_log_probs, 0.0).sum(1, keepdims=True))


ClosedForm = Callable[[Tokens, Mapping[str, Any]], FloatArray]
_CLOSED_FORMS: dict[str, ClosedForm] = {}


def _closed_form(*names: str) -> Callable[[ClosedForm], ClosedForm]:
    def file_under(function: ClosedForm) -> ClosedForm:
        _CLOSED_FORMS.update(dict.fromkeys(names, function))
        return function

    return file_under


def objectives_with_closed_form() -> list[str]:
    """Registered objectives whose weight F is known in closed form, sorted.

    >>> "dcpo" in objectives_with_closed_form()
    True
    """
    return [name for name in objective_names() if name in _CLOSED_FORMS]


def gradient_weight(objective: str | Objective, tokens: Tokens) -> FloatArray:
    """Weight F `(B, T)` of an objective with its hyper-parameters, 0 where masked.

    Args:
        objective: a name, `name(key=value,…)`, or an objective with float hyper-parameters.
        tokens: the batch.

    Raises:
        ConfigError: the objective has no closed form here.

    >>> quarter = Tokens(*np.log([[[0.25]], [[0.5]]]), np.ones((1, 1)), np.ones((1, 1), bool), *np.ones((2, 1, 1)))
    >>> gradient_weight("ppo", quarter).round(6).tolist()  # ratio 1/2 with A > 0: the wrong way, F = r
    [[0.5]]
    """
    settings = make_objective(objective)
    if settings.name not in _CLOSED_FORMS:
        raise ConfigError(
            f"{settings.name} has no closed-form gradient weight; known: {', '.join(sorted(_CLOSED_FORMS))}"
        )
    hyper = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return np.where(tokens.mask, _CLOSED_FORMS[settings.name](tokens, hyper), 0.0)


def reduction_coefficient(reduction: str, mask: NDArray[np.bool_], width: float | None = None) -> FloatArray:
    """Coefficient c `(B, 1)`: what the reduction multiplies every token loss of a response by.

    Args:
        reduction: a name of `testbed.reductions`.
        mask: `(B, T)`, every response non-empty.
        width: the constant of `seq_mean_token_sum_norm`; None: T.

    >>> reduction_coefficient("seq_mean_token_mean", np.array([[True, True], [True, False]])).tolist()
    [[0.25], [0.5]]
    """
    lengths = mask.sum(1, keepdims=True).astype(np.float64)
    sequences = float(mask.shape[0])
    coefficients = {
        "token_mean": np.full_like(lengths, 1 / lengths.sum()),
        "seq_mean_token_mean": 1 / (sequences * lengths),
        "seq_mean_token_sum": np.full_like(lengths, 1 / sequences),
        "seq_mean_token_sum_norm": np.full_like(lengths, 1 / (sequences * (width or mask.shape[1]))),
        "seq_sum_token_mean": 1 / lengths,
    }
    if reduction not in coefficients:
        raise ConfigError(f"reduction is {reduction!r}; expected one of {', '.join(coefficients)}")
    return coefficients[reduction]


def token_update(objective: str | Objective, tokens: Tokens) -> FloatArray:
    """-∂L/∂log p `(B, T)` by the closed form: c·F·A."""
    settings = make_objective(objective)
    coefficient = reduction_coefficient(settings.reduction, tokens.mask, getattr(settings, "max_length", None))
    return np.where(tokens.mask, coefficient * gradient_weight(settings, tokens) * tokens.advantages, 0.0)


def autograd_update(objective: str | Objective, tokens: Tokens) -> FloatArray:
    """-∂L/∂log p `(B, T)` by differentiating the shipped loss, whatever the objective."""
    log_probs = torch.tensor(tokens.log_probs, requires_grad=True)
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=torch.tensor(tokens.old_log_probs),
        advantages=torch.tensor(tokens.advantages),
        mask=torch.tensor(tokens.mask),
        entropies=torch.tensor(tokens.entropies),
        old_entropies=torch.tensor(tokens.old_entropies),
    )
    (gradient,) = torch.autograd.grad(make_objective(objective)(batch).loss.sum(), log_probs)
    return -gradient.numpy()


def random_tokens(
    seed: int, *, spread: float = 0.5, sequences: int = 24, width: int = 7, on_policy: bool = False
) -> Tokens:
    """A batch that reaches every region of every closed form: both signs, ratios on both sides of every bound.

    Args:
        seed: of the generator.
        spread: standard deviation of the token log-ratios.
        sequences: B.
        width: T; lengths are uniform on 1..T, with one response of full width.
        on_policy: True: current and old policy are equal, so every ratio is exactly 1.

    >>> bool((random_tokens(0, on_policy=True).ratio == 1).all())
    True
    """
    generator = np.random.default_rng(seed)
    shape = (sequences, width)
    lengths = generator.integers(1, width + 1, size=(sequences, 1))
    lengths[0] = width
    # Probabilities over three decades, so that bounds that depend on them (DCPO's) are met everywhere.
    old = np.log(generator.uniform(0.001, 1.0, size=shape)) * generator.choice([0.05, 0.5, 1.0], size=shape)
    # A few responses drift as a whole: sequence-level bounds are narrower than token-level ones.
    drift = spread * generator.normal(size=(sequences, 1)) * generator.choice([0.001, 0.3], size=(sequences, 1))
    new = np.minimum(old + drift + spread * generator.normal(size=shape), -1e-4)
    entropies = generator.uniform(0.05, 2.0, size=shape)
    old_entropies = entropies * np.exp(0.08 * generator.normal(size=shape))
    if on_policy:
        new, old_entropies = old, entropies
    advantages = np.broadcast_to(generator.normal(size=(sequences, 1)), shape)
    return Tokens(new, old, advantages, np.arange(width) < lengths, entropies, old_entropies)


# -- closed forms: (tokens, hyper-parameters) to F -----------------------------------------------------------


def _blocked_outside(
    tokens: Tokens, low: Any, high: Any, ratio: FloatArray | None = None, ceiling: float | None = None
) -> FloatArray:
    """The ratio, and 0 where it has left [low, high] in the direction A pushes, or exceeds the dual clip with A < 0."""
    ratio = tokens.ratio if ratio is None else ratio
    gain = tokens.advantages > 0
    blocked = np.where(gain, ratio > high, ratio < low)
    if ceiling is not None:
        blocked = blocked | (~gain & (ratio > ceiling))
    return np.where(blocked, 0.0, ratio)


@_closed_form("reinforce")
def _reinforce(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    return np.ones_like(tokens.log_probs)


@_closed_form("ppo", "grpo", "dr_grpo", "dapo")
def _clip(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    return _blocked_outside(tokens, 1 - hyper["clip_low"], 1 + hyper["clip_high"], ceiling=hyper["dual_clip"])


@_closed_form("gspo", "gspo_token", "luspo")
def _sequence_clip(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    ratio = np.broadcast_to(tokens.sequence_ratio, tokens.mask.shape)
    return _blocked_outside(tokens, 1 - hyper["clip_low"], 1 + hyper["clip_high"], ratio)


@_closed_form("gmpo")
def _geometric_mean(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    logs = np.where(tokens.mask, tokens.log_probs - tokens.old_log_probs, 0.0)
    gain = tokens.advantages > 0
    clipped = np.where(gain, np.minimum(logs, hyper["clip_high"]), np.maximum(logs, -hyper["clip_low"]))
    mean = clipped.sum(1, keepdims=True) / tokens.mask.sum(1, keepdims=True)
    return np.where(clipped == logs, np.exp(mean), 0.0)


@_closed_form("gppo", "ce_gppo")
def _gradient_preserving(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    ratio, gain = tokens.ratio, tokens.advantages > 0
    low, high = 1 - hyper["clip_low"], 1 + hyper["clip_high"]
    weight = np.where(gain & (ratio > high), hyper.get("beta2", 1.0) * high, ratio)
    weight = np.where(~gain & (ratio < low), hyper.get("beta1", 1.0) * low, weight)
    return weight if hyper["dual_clip"] is None else np.where(~gain & (weight > hyper["dual_clip"]), 0.0, weight)


@_closed_form("cispo")
def _clipped_weight(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    low = -math.inf if hyper["clip_low"] is None else 1 - hyper["clip_low"]
    return np.clip(tokens.ratio, low, 1 + hyper["clip_high"])


@_closed_form("dcpo")
def _dynamic_clip(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    # |r - 1|·p ≤ ε with p = r q, as a condition on r instead of the published bounds; r ≥ 1/2 is the convention
    # for tokens at which the condition never binds from below.
    ratio, old = tokens.ratio, np.exp(tokens.old_log_probs)
    moved = old * ratio * (ratio - 1)
    gain = tokens.advantages > 0
    too_far = np.where(gain, moved > hyper["clip_high"], (-moved > hyper["clip_low"]) | (ratio < 0.5))
    return np.where(too_far | (ratio > hyper["ratio_max"]), 0.0, ratio)


@_closed_form("bapo")
def _balanced(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    low, high = _bapo_bounds(tokens, hyper)
    return _blocked_outside(tokens, low, high, ceiling=hyper["dual_clip"])


def _bapo_bounds(tokens: Tokens, hyper: Mapping[str, Any]) -> tuple[float, float]:
    """The published search as a loop, one bound at a time, over integer step counts."""
    ratio, size = tokens.ratio[tokens.mask], tokens.advantages[tokens.mask]
    gain = size > 0
    (low_start, low_end), (high_start, high_end) = hyper["low_range"], hyper["high_range"]
    low_steps = round((low_end - low_start) / hyper["low_step"] - 0.5 + 1e-6)
    high_steps = round((high_end - high_start) / hyper["high_step"] - 0.5 + 1e-6)
    taken_low = taken_high = 0

    def share(low: float, high: float) -> float:
        if hyper["contribution"] == "active":
            value = np.where(gain, np.where(ratio > high, 0, ratio), np.where(ratio < low, 0, ratio))
        else:
            value = np.abs(np.minimum(ratio * size, np.clip(ratio, low, high) * size)) / np.abs(size)
        return float((value * size)[gain].sum() / (value * np.abs(size)).sum())

    def bounds() -> tuple[float, float]:
        return low_start + taken_low * hyper["low_step"], high_start + taken_high * hyper["high_step"]

    while share(*bounds()) < hyper["target"]:
        if hyper["order"] == "upper_first" and taken_low < low_steps:
            taken_high, taken_low = (
                (taken_high + 1, taken_low) if taken_high < high_steps else (taken_high, taken_low + 1)
            )
        elif hyper["order"] == "lower_first" and taken_high < high_steps:
            taken_high, taken_low = (
                (taken_high, taken_low + 1) if taken_low < low_steps else (taken_high + 1, taken_low)
            )
        else:
            break
    return bounds()


@_closed_form("sapo")
def _soft_gate(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    tau = np.where(tokens.advantages > 0, hyper["tau_pos"], hyper["tau_neg"])
    return tokens.ratio / np.cosh(tau * (tokens.ratio - 1) / 2) ** 2


@_closed_form("erc")
def _entropy_ratio(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    ratio = (tokens.entropies + 1e-8) / (tokens.old_entropies + 1e-8)
    kept = (ratio > 1 - hyper["beta_low"]) & (ratio < 1 + hyper["beta_high"])
    return np.where(kept, gradient_weight(hyper["base"], tokens), 0.0)


@_closed_form("vespo")
def _smooth_sequence_weight(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    product = tokens.product_ratio
    (power_pos, decay_pos), (power_neg, decay_neg) = hyper["pos"], hyper["neg"]
    power = np.where(tokens.advantages >= 0, power_pos, power_neg)
    decay = np.where(tokens.advantages >= 0, decay_pos, decay_neg)
    return product**power * np.exp(decay * (1 - product))


@_closed_form("dppo")
def _divergence_mask(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    new, old = np.exp(tokens.log_probs), np.exp(tokens.old_log_probs)
    if hyper["divergence"] == "tv":
        divergence = np.abs(new - old)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = old * np.log(old / new) + (1 - old) * np.log((1 - old) / (1 - new))
    away = np.where(tokens.advantages > 0, tokens.ratio > 1, tokens.ratio < 1)
    capped = np.minimum(tokens.ratio, math.inf if hyper["ratio_max"] is None else hyper["ratio_max"])
    return np.where(away & (divergence > hyper["threshold"]), 0.0, capped)


@_closed_form("topr")
def _tapered(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    return np.where(tokens.advantages > 0, 1.0, np.minimum(tokens.product_ratio, 1.0))


@_closed_form("aspo")
def _inverted_weight(tokens: Tokens, hyper: Mapping[str, Any]) -> FloatArray:
    inside = _blocked_outside(tokens, 1 - hyper["clip_low"], 1 + hyper["clip_high"]) > 0
    weight = np.where(tokens.advantages > 0, 1 / tokens.ratio, tokens.ratio)
    return np.where(inside, np.minimum(weight, hyper["weight_max"]), 0.0)


# -- predictions ---------------------------------------------------------------------------------------------


def _every(function: Callable[[str | Objective, Tokens], FloatArray]) -> FloatArray:
    return np.stack(
        [function(name, random_tokens(seed)) for name in objectives_with_closed_form() for seed in range(3)]
    )


register(
    Prediction(
        id="T2",
        name="gradient-weights",
        statement="The gradient of every shipped loss is the closed-form weight of its published equation.",
        route="autograd through the loss, its reduction and its validation, on batches with every kind of token",
        unit="loss per nat of log-probability",
        tolerance=1e-12,
        predict=lambda: _every(token_update),
        measure=lambda: _every(autograd_update),
    )
)
