"""What all objectives share: the call, the reduction, and the few helpers their equations are written with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval, batch_metrics
from testbed.errors import ConfigError, UnknownNameError, did_you_mean, shown
from testbed.masking import gradient_through_clamp
from testbed.reductions import reductions
from testbed.registry import Registry, format_call, parse_call

__all__ = [
    "HardClip",
    "Hyper",
    "Objective",
    "ObjectiveOutput",
    "Presets",
    "Wrapper",
    "check_choice",
    "check_flag",
    "check_order",
    "check_pair",
    "check_range",
    "choose",
    "clamp",
    "clipped_surrogate",
    "clipped_surrogate_gradient",
    "gradient_preserving_gradient",
    "gradient_preserving_surrogate",
    "make_objective",
    "objective",
    "registry",
    "score_loss",
    "straight_through",
    "tensor_like",
]

Hyper = float | Tensor
"""A hyper-parameter: a float, or a tensor that broadcasts to `(..., 1, 1)`, one value per replica."""

Presets = Mapping[str, Mapping[str, Any]]
"""Name of a preset to the hyper-parameters that differ from the defaults."""


@dataclass(frozen=True, eq=False)
class ObjectiveOutput:
    """What calling an objective returns."""

    loss: Tensor
    """`(...,)`, to minimise: `output.loss.sum().backward()`."""
    token_loss: Tensor
    """`(..., B, T)`, detached, 0 where masked."""
    _measure: Callable[[], dict[str, Tensor]] = field(repr=False)

    @cached_property
    def metrics(self) -> dict[str, Tensor]:
        """Name to `(...,)`, detached; NaN where a metric has no data.

        Computed when first read: together they cost several times the loss.
        """
        with torch.no_grad():
            return {name: value.detach() for name, value in self._measure().items()}


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A per-token loss of a `TokenBatch`, a reduction, and the advantage it is used with.

    Sub-classes are frozen dataclasses whose fields are the paper's hyper-parameters and whose `token_loss` is the
    paper's equation. No I/O, no globals, no device moves.

    Raises:
        ConfigError: at construction, when a hyper-parameter is out of its range.
        UnknownNameError: at construction, when `reduction` is not a registered name.
    """

    name: ClassVar[str]
    """The registered name."""
    advantage: ClassVar[str] = "group_standardised"
    """The advantage estimator of the paper, a name in `testbed.advantages`."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Optional `TokenBatch` fields without which the objective cannot be evaluated."""
    needs_whole_batch: ClassVar[bool] = False
    """True where a statistic of all tokens of the step decides a token's loss: micro-batches then differ."""
    mixes_advantages: ClassVar[str] = ""
    """Empty where a token's loss reads its own advantage alone; otherwise what reads those of its response as well."""
    compares_responses: ClassVar[bool] = False
    """True where responses of one prompt are compared: without `groups` all of a batch count as those of one prompt."""
    exact_on_policy: ClassVar[str] = ""
    """Empty where the gradient at ratio 1 is the exact policy gradient; otherwise the reason why not."""
    acts_without_advantage: ClassVar[str] = ""
    """Empty where A = 0 gives neither loss nor gradient; otherwise the term that remains."""
    cuts_gradient: ClassVar[str] = ""
    """Empty where the gradient is the derivative of the loss; otherwise what stands under a stop-gradient."""
    adapts: ClassVar[str] = ""
    """Empty for an objective that is the same in every step; otherwise what of it follows the training: a loop has to
    ask for `next_step` after every optimiser step."""
    closed_form: ClassVar[bool] = False
    """Whether `log_prob_gradient` states the gradient of the class's token loss. A class that states one of the two
    anew is taken to have a closed form where it states the gradient, unless it declares otherwise."""
    presets: ClassVar[Presets] = {}
    """Named settings other than the paper's, such as "released" for the authors' scripts; see `make_objective`."""

    reduction: str = "token_mean"
    """How token losses become one number, a name in `testbed.reductions`."""

    def __post_init__(self) -> None:
        reductions[self.reduction]
        self.check()

    def check(self) -> None:  # noqa: B027 - an objective without hyper-parameters has nothing to check
        """Raise a `ConfigError` for hyper-parameters out of range."""

    @abstractmethod
    def token_loss(self, batch: TokenBatch) -> Tensor:
        """ℓ: `(..., B, T)`, differentiable in `batch.log_probs`, 0 where masked."""

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor | None:
        """∂ℓ/∂log p of every token, -F·A, `(..., B, T)`, in closed form; `None`: differentiate `token_loss` instead.

        Optional, and only for a token loss that depends on no other token's log-probability and on no entropy. It
        saves a training loop without a graph of its own the cost of building one.
        """
        return None

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        stated = vars(cls)
        if "closed_form" not in stated and not {"log_prob_gradient", "token_loss", "loss"}.isdisjoint(stated):
            cls.closed_form = "log_prob_gradient" in stated

    @property
    def has_closed_form(self) -> bool:
        """Whether `log_prob_gradient` is the gradient of the `token_loss` in force."""
        return self.closed_form

    def reduction_weights(self, batch: TokenBatch, reduction: str | None = None) -> Tensor:
        """∂L/∂ℓ of every token `(..., B, T)`: what a reduction multiplies a token's loss with, 0 where masked.

        Args:
            batch: the tokens.
            reduction: a name in `testbed.reductions`; `None`: the objective's own.
        """
        with torch.enable_grad():
            token_loss = torch.zeros_like(batch.log_probs).requires_grad_()
            reduce = reductions[reduction or self.reduction]
            reduced = reduce(token_loss, batch, self.max_length_or(batch.padded_width)).sum()
        (weights,) = torch.autograd.grad(reduced, token_loss)
        return weights.masked_fill(~batch.mask, 0)

    def clip_interval(self, batch: TokenBatch) -> ClipInterval | None:
        """The ratios left alone, for the clip and band metrics; `None` for an objective without an interval."""
        return None

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Metrics only this objective has; names are in the glossary of `testbed.diagnostics`."""
        return {}

    def loss(self, batch: TokenBatch) -> Tensor:
        """The reduced loss `(...,)` alone, for inner loops that record no metrics."""
        core = self._readable(batch)
        return self._reduce(self.token_loss(core), core)

    def __call__(self, batch: TokenBatch) -> ObjectiveOutput:
        core = self._readable(batch)
        token_loss = self.token_loss(core)
        padding = batch.mask.shape[-1] - core.mask.shape[-1]
        detached = token_loss.detach()
        return ObjectiveOutput(
            self._reduce(token_loss, core),
            torch.nn.functional.pad(detached, (0, padding)) if padding else detached,
            lambda: {**batch_metrics(core, self.clip_interval(core)), **self.own_metrics(core)},
        )

    def next_step(self, batch: TokenBatch) -> Objective:
        """What is minimised in the step after one on `batch`, the whole of it; itself unless the class `adapts`."""
        return self

    def max_length_or(self, padded_width: int) -> Hyper:
        """The constant of `seq_mean_token_sum_norm`, a number or `(...,)`; the padded width unless there is one."""
        return padded_width

    def hyper_parameters(self) -> dict[str, Any]:
        """The fields that differ from their defaults, the reduction last."""
        changed = {}
        for item in sorted(fields(self), key=lambda item: item.name == "reduction"):
            value = getattr(self, item.name)
            if isinstance(value, Tensor) or value != item.default:
                changed[item.name] = value
        return changed

    def label(self) -> str:
        """`name` or `name(key=value,…)`: what `make_objective` turns back into this object."""
        described = {
            key: value.label() if isinstance(value, Objective) else value
            for key, value in self.hyper_parameters().items()
        }
        return format_call(self.name, described)

    def _readable(self, batch: TokenBatch) -> TokenBatch:
        if self.needs:
            batch.require(*self.needs, reason=f"{self.name} reads {'them' if len(self.needs) > 1 else 'it'}")
        return batch.trimmed()

    def _reduce(self, token_loss: Tensor, batch: TokenBatch) -> Tensor:
        return reductions[self.reduction](token_loss, batch, self.max_length_or(batch.padded_width))


@dataclass(frozen=True, kw_only=True)
class HardClip(Objective):
    """PPO's surrogate on an interval of the token ratio; a sub-class states its bounds.

        ℓ = -min(rA, clip(r, low, high)·A);  for A < 0, ℓ ← min(ℓ, -ceiling·A)

        F = r, but 0 where A > 0, r > high;  where A < 0, r < low;  where A < 0, r > ceiling

    The bounds are constants for the gradient: they may depend on the old policy, or on the whole batch.
    """

    @abstractmethod
    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        """The bounds, and the ceiling of the dual clip."""

    def token_loss(self, batch: TokenBatch) -> Tensor:
        low, high, ceiling, *_ = self.clip_interval(batch)
        return clipped_surrogate(batch.ratio, batch.advantages, low, high, ceiling)

    def log_prob_gradient(self, batch: TokenBatch) -> Tensor | None:
        low, high, ceiling, *_ = self.clip_interval(batch)
        return clipped_surrogate_gradient(batch, low, high, ceiling)


@dataclass(frozen=True, kw_only=True)
class Wrapper(Objective):
    """An objective made of another one: it changes `token_loss` and leaves everything else to the base.

    Advantage estimator, interval, metrics, divisor and reduction are the base's. What is declared in class attributes
    adds up: a wrapper needs what its base needs, and has the exceptions its base has.

    Raises:
        ConfigError: the base is, or wraps, an objective of the same name.
    """

    base: Objective | str = "dapo"
    """The objective inside: an object, a name or `name(key=value,…)`."""
    reduction: str = ""
    """Empty: the reduction of the base."""

    def __post_init__(self) -> None:
        base = make_objective(self.base)
        object.__setattr__(self, "base", base)
        if self.reduction == "":
            object.__setattr__(self, "reduction", base.reduction)
        object.__setattr__(self, "advantage", base.advantage)
        object.__setattr__(self, "needs", tuple(dict.fromkeys((*base.needs, *self.needs))))
        for trait in ("needs_whole_batch", "compares_responses"):
            object.__setattr__(self, trait, getattr(self, trait) or getattr(base, trait))
        for reason in ("mixes_advantages", "exact_on_policy", "acts_without_advantage", "cuts_gradient", "adapts"):
            object.__setattr__(self, reason, getattr(self, reason) or getattr(base, reason))
        super().__post_init__()

    @property
    def wrapped(self) -> Objective:
        """The base, as the object it was resolved to."""
        assert isinstance(self.base, Objective)
        return self.base

    def check(self) -> None:
        """Raise a `ConfigError` where a wrapper wraps itself."""
        inner: Objective = self.wrapped
        while isinstance(inner, Wrapper):
            if inner.name == self.name:
                raise ConfigError(
                    f"{self.name}: base is {self.wrapped.label()}, which holds another {self.name}; "
                    "give each wrapper once"
                )
            inner = inner.wrapped

    @property
    def has_closed_form(self) -> bool:
        """Whether both have one: a wrapper's is made from its base's."""
        return super().has_closed_form and self.wrapped.has_closed_form

    def hyper_parameters(self) -> dict[str, Any]:
        changed = super().hyper_parameters()
        if self.reduction == self.wrapped.reduction:
            del changed["reduction"]
        default = next(item.default for item in fields(self) if item.name == "base")
        if self.wrapped.label() == default:
            del changed["base"]
        return changed

    def clip_interval(self, batch: TokenBatch) -> ClipInterval | None:
        return self.wrapped.clip_interval(batch)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return self.wrapped.own_metrics(batch)

    def next_step(self, batch: TokenBatch) -> Objective:
        following = self.wrapped.next_step(batch)
        return self if following is self.wrapped else replace(self, base=following)

    def max_length_or(self, padded_width: int) -> Hyper:
        return self.wrapped.max_length_or(padded_width)


registry: Registry[type[Objective]] = Registry("objective", package="testbed.objectives")

ObjectiveClass = TypeVar("ObjectiveClass", bound=type[Objective])


def objective(name: str) -> Callable[[ObjectiveClass], ObjectiveClass]:
    """Decorator that registers an objective class under `name`."""

    def file_under(objective_class: ObjectiveClass) -> ObjectiveClass:
        objective_class.name = name
        registry.register(name)(objective_class)
        return objective_class

    return file_under


def make_objective(name: str | Objective, **hyper_parameters: Any) -> Objective:
    """An objective by name, by `name(key=value,…)`, or an objective unchanged.

    The word `preset` among the hyper-parameters starts from a named setting of the objective instead of the paper's
    defaults; `preset="released"` is the authors' released code, where it differs from their paper.

    Raises:
        UnknownNameError: no such objective; the message has the nearest name.
        ConfigError: no such hyper-parameter, or a value out of its range.

    Example:
        >>> make_objective("dapo", clip_low=0.1).label()
        'dapo(clip_low=0.1)'
        >>> make_objective("erc(base=gppo,beta_low=0.1)").label()
        'erc(base=gppo,beta_low=0.1)'
        >>> make_objective("dcpo", preset="released").label()
        'dcpo(clip_low=0.2,clip_high=0.28,reduction=token_mean)'
    """
    if isinstance(name, Objective):
        if hyper_parameters:
            raise ConfigError(
                f"hyper-parameters {sorted(hyper_parameters)} given together with the finished objective "
                f"{name.label()}; pass its name, or use dataclasses.replace"
            )
        return name
    base_name, written = parse_call(name)
    objective_class = registry[base_name]
    arguments = {**written, **hyper_parameters}
    if "preset" in arguments:
        arguments = {**_preset(objective_class, base_name, arguments.pop("preset")), **arguments}
    known = [item.name for item in fields(objective_class)]
    for key in arguments:
        if key not in known:
            raise ConfigError(_unknown_hyper_parameter(base_name, key, known))
    return objective_class(**arguments)


def _preset(objective_class: type[Objective], name: str, preset: Any) -> Mapping[str, Any]:
    presets = objective_class.presets
    if not presets:
        raise ConfigError(f"{name} has no presets; leave preset={shown(preset)} out: its defaults are the paper's")
    if not isinstance(preset, str) or preset not in presets:
        raise UnknownNameError(f"preset of {name}", str(preset), presets)
    return presets[preset]


def _unknown_hyper_parameter(objective: str, key: str, known: list[str]) -> str:
    hint = did_you_mean(key, known) or "."
    return f"{objective} has no hyper-parameter {shown(key)}{hint} It has: {', '.join(known)}"


# -- the vocabulary of the equations -------------------------------------------------------------------------------


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: Hyper, high: Hyper, ceiling: Hyper | None = None
) -> Tensor:
    """-min(rA, clip(r, low, high)·A): the token loss of every hard-clipped objective.

    F = r, and 0 where A > 0 with r > high, where A < 0 with r < low, and where A < 0 with r > ceiling. On a bound the
    gradient is that of the inside.

    Args:
        ratio: r, `(..., B, T)`.
        advantages: A, `(..., B, T)`.
        low: lower end of the interval, as a ratio (0.8, not 0.2).
        high: upper end, likewise.
        ceiling: c of the dual clip: for A < 0 the loss is capped at -cA, so its gradient is 0 where r > c.
    """
    # -min(a, b) = max(-a, -b). Which of the two it is decides whether there is a gradient; to say so by a factor of
    # 1 or 0 costs a third of differentiating max and clamp.
    push = -advantages
    free = ratio * push
    with torch.no_grad():
        held = clamp(ratio, low, high) * push
        keeps = free >= held
        if ceiling is not None:
            # |A| and not -A: where A > 0 the loss is negative and the cap out of reach.
            cap = ceiling * advantages.abs()
            held, keeps = torch.minimum(torch.maximum(free, held), cap), keeps & (free <= cap)
        factor = keeps.to(ratio.dtype)
    return free * factor + held * (1 - factor)


def gradient_preserving_surrogate(
    batch: TokenBatch, low: Hyper, high: Hyper, *, beta_low: Hyper, beta_high: Hyper, ceiling: Hyper | None
) -> Tensor:
    """-rA, with tokens that left the interval in A's direction held at β·bound in value and in gradient weight.

    Args:
        batch: the tokens.
        low: lower end of the interval, as a ratio.
        high: upper end, likewise.
        beta_low: coefficient of the tokens below the interval with A < 0.
        beta_high: coefficient of the tokens above it with A > 0.
        ceiling: c of the dual clip: for A < 0 the loss is capped at -cA.
    """
    ratio, advantages = batch.ratio, batch.advantages
    unit = straight_through(batch.log_ratio)
    weight = torch.where((ratio < low) & (advantages < 0), beta_low * low * unit, ratio)
    weight = torch.where((ratio > high) & (advantages > 0), beta_high * high * unit, weight)
    loss = -weight * advantages
    if ceiling is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -ceiling * advantages), loss)


def clipped_surrogate_gradient(batch: TokenBatch, low: Hyper, high: Hyper, ceiling: Hyper | None = None) -> Tensor:
    """dℓ/dlog p of `clipped_surrogate` on the token ratio: -rA, and 0 where the gradient is cut."""
    ratio, difference = batch.ratio_and_difference()
    push = batch.opposite_advantages
    weight = ratio * push
    # Larger than the weight exactly where the ratio has left the interval in the direction of A. Numbers and not truth
    # values, because a product takes a quarter of the time that filling takes.
    kept = clamp(ratio, low, high).mul_(push).le_(weight)
    if ceiling is not None:
        kept.masked_fill_((push > 0) & (ratio > ceiling), 0)
    return gradient_through_clamp(weight.mul_(kept), difference)


def gradient_preserving_gradient(
    batch: TokenBatch, low: Hyper, high: Hyper, *, beta_low: Hyper, beta_high: Hyper, ceiling: Hyper | None
) -> Tensor:
    """dℓ/dlog p of `gradient_preserving_surrogate`; arguments as there."""
    ratio, difference = batch.ratio_and_difference()
    advantages = batch.advantages
    held_low, held_high = (tensor_like(beta * bound, ratio) for beta, bound in ((beta_low, low), (beta_high, high)))
    weight = torch.where((ratio < low) & (advantages < 0), held_low, ratio)
    weight = torch.where((ratio > high) & (advantages > 0), held_high, weight)
    gradient = weight * batch.opposite_advantages
    if ceiling is not None:
        gradient.masked_fill_((advantages < 0) & (weight > ceiling), 0)
    return gradient_through_clamp(gradient, difference)


def clamp(values: Tensor, low: Hyper, high: Hyper) -> Tensor:
    """`torch.clamp` for any mix of float and tensor bounds; the gradient passes at equality."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return torch.clamp(values, tensor_like(low, values), tensor_like(high, values))
    return values.clamp(low, high)


def choose(condition: Tensor, yes: Hyper, no: Hyper, reference: Tensor) -> Tensor:
    """One number where true and another where false, in the dtype of `reference`.

    By interpolation, which is exact at both ends and faster than `torch.where` on a processor.
    """
    return torch.lerp(tensor_like(no, reference), tensor_like(yes, reference), condition.to(reference.dtype))


def tensor_like(value: Hyper, reference: Tensor) -> Tensor:
    """A hyper-parameter as a tensor of the dtype and device of `reference`, without a detour through float32."""
    return torch.as_tensor(value, dtype=reference.dtype, device=reference.device)


def score_loss(weight: Tensor, batch: TokenBatch) -> Tensor:
    """-sg[w]·A·log p: the token loss whose whole weight is a constant, so that F = w; `weight` may be `(..., B, 1)`."""
    # log p is 0 where masked, so one advantage per response serves as well as one per token.
    advantages = batch.advantages if batch.response_advantages is None else batch.response_advantages
    return weight.detach() * -advantages * batch.log_probs


def straight_through(log_ratio: Tensor) -> Tensor:
    """exp(z - sg[z]): 1 in value, with the gradient of log p; finite where r/sg[r] would be NaN."""
    return (log_ratio - log_ratio.detach()).exp()


LARGEST = 1e18
"""Largest size of a hyper-parameter, and inverse of the smallest: it fits into every kind of number a tensor holds."""


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return 2 * LARGEST if value > 0 else -2 * LARGEST


def check_pair(owner: str, name: str, value: object, expected: str, *, allowed: Callable[[float, float], bool]) -> None:
    """Raise a `ConfigError` unless `value` is two numbers of which `allowed` is true."""
    numbers = value if isinstance(value, tuple | list) else ()
    pair = [number for number in numbers if isinstance(number, int | float) and not isinstance(number, bool)]
    if len(numbers) != 2 or len(pair) != 2 or max(abs(pair[0]), abs(pair[1])) > LARGEST or not allowed(*pair):
        raise ConfigError(f"{owner}: {name} is {shown(value)}; expected {expected}")


def check_flag(owner: str, name: str, value: object) -> None:
    """Raise a `ConfigError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{owner}: {name} is {shown(value)}; expected True or False")


def check_choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a `ConfigError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise ConfigError(f"{owner}: {name} is {shown(value)}; expected {expected}")


def check_order(owner: str, low: tuple[str, Hyper], high: tuple[str, Hyper]) -> None:
    """Raise a `ConfigError` where one of two named numbers is larger than the other anywhere."""
    if bool((torch.as_tensor(low[1]) > torch.as_tensor(high[1])).any()):
        raise ConfigError(
            f"{owner}: {low[0]} is {shown(low[1])} and {high[0]} {shown(high[1])}; expected {low[0]} <= {high[0]}"
        )


def check_range(
    owner: str,
    name: str,
    value: Hyper | None,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
    optional: bool = False,
) -> None:
    """Raise a `ConfigError` unless every entry of `value` lies in the interval from `low` to `high`.

    `optional` says whether `None` will do. Sizes go from 1e-18 to 1e18, with 0 and infinity besides. A tensor has to
    leave sequences and tokens alone: its last two dimensions are 1, or it is a single number.
    """
    if value is None and optional:
        return
    real = value.numel() and value.dtype != torch.bool and not value.is_complex() if isinstance(value, Tensor) else True
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor) or not real:
        raise ConfigError(
            f"{owner}: {name} is {shown(value)}; expected a number or a tensor that broadcasts to (..., 1, 1)"
        )
    tensor = value.double() if isinstance(value, Tensor) else torch.tensor(_as_float(value), dtype=torch.float64)
    size = tensor.abs()
    if bool((((size > LARGEST) & (size < math.inf)) | ((size < 1 / LARGEST) & (size > 0))).any()):
        raise ConfigError(
            f"{owner}: {name} is {shown(value)}; expected a size between {1 / LARGEST:g} and {LARGEST:g}, 0 or infinity"
        )
    above = tensor > low if open_low else tensor >= low
    below = tensor < high if open_high else tensor <= high
    if not bool((above & below).all()):
        left, right = (
            "(" if open_low or math.isinf(low) else "[",
            ")" if open_high or math.isinf(high) else "]",
        )
        raise ConfigError(
            f"{owner}: {name} is {shown(value if isinstance(value, int | float) else tensor.tolist())}; "
            f"expected a value in {left}{low}, {high}{right}"
        )
    if isinstance(value, Tensor) and value.numel() != math.prod(value.shape[:-2]):
        raise ConfigError(
            f"{owner}: {name} is a tensor of shape {tuple(value.shape)}; expected one number per replica, (..., 1, 1). "
            f"Write {name}[..., None, None]"
        )
