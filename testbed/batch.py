"""`TokenBatch`: the one thing every objective reads.

Legend for shapes: `...` any leading replica dimensions (seeds, hyper-parameter settings), `B` sequences, `T` token
positions. A language-model batch has no leading dimension.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from testbed.errors import BatchError

__all__ = ["MAX_LOG_RATIO", "TokenBatch", "clamp_log_ratio", "gradient_through_clamp"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ±20: exp(20) ≈ 4.9e8 is finite in float32, and beyond it the gradient is zero."""

_TOKEN_FIELDS = (
    "old_log_probs",
    "advantages",
    "entropies",
    "old_entropies",
    "old_kappas",
    "sampler_log_probs",
    "ref_log_probs",
)
_DIFFERENTIABLE = ("log_probs", "entropies")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Sampled tokens with what the policies said about them; validated once, at construction.

    Masked positions may hold anything, NaN included: they are overwritten with zeros before any arithmetic, so
    padding cannot change a value or a gradient. Gradients flow to `log_probs` and `entropies` alone; every other tensor
    is a constant, so that the current policy may stand in for the old one without a `detach`. Half-precision inputs
    are widened to float32, because a ratio of probabilities does not survive eight bits of mantissa.

    Raises:
        BatchError: shapes differ, the mask is not boolean or marks no token, a value under the mask is NaN or
            infinite, or a count is not positive. The message names the field.

    Example:
        >>> batch = TokenBatch(
        ...     log_probs=torch.tensor([[-1.0, -2.0]]),
        ...     old_log_probs=torch.tensor([[-1.0, -1.0]]),
        ...     advantages=torch.tensor([0.5]),
        ...     mask=torch.tensor([[True, True]]),
        ... )
        >>> batch.log_ratio.tolist()
        [[0.0, -1.0]]
        >>> batch.advantages.tolist()
        [[0.5, 0.5]]
    """

    log_probs: Tensor
    """float `(..., B, T)`: natural log-probability of the sampled token under the current policy; differentiable."""
    old_log_probs: Tensor
    """float `(..., B, T)`: the same under the policy in the ratio's denominator; a constant."""
    advantages: Tensor
    """float `(..., B, T)`, or `(..., B)` for one value per response; positive pushes the probability up."""
    mask: Tensor
    """bool `(..., B, T)`: True where the token belongs to the response."""
    entropies: Tensor | None = None
    """float `(..., B, T)`, nats: full-vocabulary entropy of the current policy at the position."""
    old_entropies: Tensor | None = None
    """float `(..., B, T)`, nats: the same when the token was sampled."""
    old_kappas: Tensor | None = None
    """float `(..., B, T)`: κ = Σ_v q_v²(H_old + log q_v) over the vocabulary when the token was sampled."""
    sampler_log_probs: Tensor | None = None
    """float `(..., B, T)`: what the sampler itself reported, where it differs from `old_log_probs`."""
    ref_log_probs: Tensor | None = None
    """float `(..., B, T)`: log-probability under a frozen reference policy."""
    groups: Tensor | None = None
    """int64 `(..., B)`: the prompt that each response answers; `None`: all answer the same one."""
    token_count: Tensor | int | None = None
    """Response tokens in the whole optimiser step; `None`: those of this batch. A number or `(...,)`."""
    sequence_count: Tensor | int | None = None
    """Non-empty responses in the whole optimiser step; `None`: those of this batch. A number or `(...,)`."""

    def __post_init__(self) -> None:
        self._check_mask()
        for name in ("log_probs", *_TOKEN_FIELDS):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._checked(name, value))
        self._check_groups()
        for name in ("token_count", "sequence_count"):
            self._check_count(name, getattr(self, name))

    @classmethod
    def trusted(cls, *, like: TokenBatch | None = None, **fields: Any) -> TokenBatch:
        """A batch of tensors that a program made itself and knows to be right; nothing is checked.

        Tensors are float `(..., B, T)` and finite under the mask, `mask` is bool and marks a token of every batch;
        `advantages` may be `(..., B)`. Masked positions may hold anything.

        Args:
            like: an earlier batch of the same dtype. Where its mask is the very same tensor, what was found out about
                it is taken over instead of being computed again.
            fields: those of the class.
        """
        batch = object.__new__(cls)
        batch.__dict__.update(_DEFAULTS)
        batch.__dict__.update(fields)
        if like is not None and like.mask is batch.mask:
            batch.__dict__.update({name: like.__dict__[name] for name in _OF_MASK if name in like.__dict__})
        if batch.advantages.dim() < batch.mask.dim():
            object.__setattr__(batch, "advantages", batch._one_per_token(batch.advantages))
        if batch._has_padding:
            for name in ("log_probs", *_TOKEN_FIELDS):
                value = getattr(batch, name)
                if value is not None:
                    object.__setattr__(batch, name, batch._without_padding(value))
        return batch

    # -- derived quantities: one definition each -------------------------------------------------------------

    @property
    def log_ratio(self) -> Tensor:
        """Z = log p - log q, clamped to ±20; `(..., B, T)`, differentiable, zero gradient beyond the clamp."""
        return self._once("log_ratio", lambda: self._difference(_ClampedDifference))

    @property
    def unclamped_log_ratio(self) -> Tensor:
        """Z = log p - log q as it is; `(..., B, T)`, differentiable, 0 where masked.

        For the mean or sum of a response, which is clamped as a whole: clamping its tokens would change it.
        """
        return self._once("unclamped_log_ratio", lambda: self._difference(_Difference))

    def _difference(self, function: type[torch.autograd.Function]) -> Tensor:
        if "log_probs" in self.__dict__:
            difference: Tensor = function.apply(self.log_probs, self.old_log_probs, None)  # type: ignore[no-untyped-call]
        else:
            current = self.__dict__["_current"]
            difference = function.apply(current, self.old_log_probs, self._bits(current.dtype))  # type: ignore[no-untyped-call]
        return difference

    def __getattr__(self, name: str) -> Tensor:
        # Where `with_current` put the log-probabilities off: most objectives read their ratio alone, which is masked
        # in the same pass that makes it.
        if name != "log_probs" or "_current" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        masked = self._without_padding(self.__dict__["_current"])
        object.__setattr__(self, "log_probs", masked)
        return masked

    @property
    def ratio(self) -> Tensor:
        """R = p / q = exp(z); `(..., B, T)`, 1 where masked."""
        return self._once("ratio", lambda: self.log_ratio.exp())

    def ratio_and_difference(self) -> tuple[Tensor, Tensor]:
        """The ratio, and log p - log q before the clamp, for `gradient_through_clamp`; `(..., B, T)` each."""
        difference = self.log_probs - self.old_log_probs
        return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp_(), difference

    @property
    def opposite_advantages(self) -> Tensor:
        """-A, `(..., B, T)`; one tensor for all policies that read these tokens, not to be changed."""
        if "opposite" not in self._of_samples:
            self._of_samples["opposite"] = -self.advantages
        return self._of_samples["opposite"]

    @property
    def response_advantages(self) -> Tensor | None:
        """A_i, `(..., B, 1)`, where one value per response was given; `None` where each token has its own."""
        given: Tensor | None = self.__dict__.get("_response_advantages")
        return given

    @cached_property
    def lengths(self) -> Tensor:
        """n_i: response tokens of each sequence; float `(..., B)`, 0 for an empty response."""
        return self._counts.to(self.log_probs.dtype)

    @cached_property
    def width(self) -> int:
        """Columns up to the last response token of any sequence; columns beyond it are padding everywhere."""
        if not bool((self._counts < self.mask.shape[-1]).all()):
            return self.mask.shape[-1]
        used = self.mask.reshape(-1, self.mask.shape[-1]).any(0).nonzero()
        return int(used[-1]) + 1 if used.numel() else self.mask.shape[-1]

    @property
    def padded_width(self) -> int:
        """Columns as the caller gave them, also of what `trimmed` returns."""
        given: int | None = self.__dict__.get("_padded_width")
        return self.mask.shape[-1] if given is None else given

    @cached_property
    def _divisors(self) -> Tensor:
        return self.lengths.clamp(min=1).unsqueeze(-1)

    @cached_property
    def _non_empty(self) -> Tensor:
        return (self.lengths > 0).sum(-1, dtype=self.log_probs.dtype)

    def total_tokens(self) -> Tensor:
        """N: the denominator of a token mean; `token_count` where given; float `(...,)`."""
        return self._count(self.token_count, self.lengths.sum(-1))

    def total_sequences(self) -> Tensor:
        """The denominator of a sequence mean: non-empty responses, or `sequence_count` where given; float `(...,)`."""
        return self._count(self.sequence_count, self._non_empty)

    def sequence_mean(self, values: Tensor) -> Tensor:
        """(1/n_i) Σ_t m·v; `(..., B, 1)`, 0 for an empty response. `values` must be 0 where masked."""
        return values.sum(-1, keepdim=True) / self._divisors

    def at_response_tokens(self, values: Tensor) -> Tensor:
        """One value per response, `(..., B, 1)`, at each of its tokens; `(..., B, T)`, 0 where masked."""
        if not self._has_padding:
            return values.expand(*values.shape[:-1], self.mask.shape[-1])
        if "numbers" not in self._of_mask:
            self._of_mask["numbers"] = self.mask.to(self.log_probs.dtype)
        spread: Tensor = _AtResponseTokens.apply(values, self._of_mask["numbers"], self.lengths)  # type: ignore[no-untyped-call]
        return spread

    def require(self, *names: str, reason: str) -> tuple[Tensor, ...]:
        """The optional fields of these names.

        Raises:
            BatchError: some are absent; the message names them and why they are needed.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise BatchError(
                f"{' and '.join(missing)} missing from the batch; {reason}. "
                f"Pass {', '.join(f'{name}=(..., B, T)' for name in missing)} to TokenBatch"
            )
        return tuple(getattr(self, name) for name in names)

    def prepared(self) -> TokenBatch:
        """Itself, with everything found out that does not depend on the current policy: a compiler needs that."""
        _ = self.width, self._of_mask, self._divisors, self._non_empty, self.opposite_advantages
        return self

    def with_current(self, log_probs: Tensor, entropies: Tensor | None = None) -> TokenBatch:
        """The same sampled tokens under another current policy, without validating again.

        This is what an inner training loop changes; the caller vouches for shape and dtype.
        """
        # What depends on the mask alone is found out once, and not again for each policy.
        _ = self.width, self._of_mask, self._of_samples, self._divisors, self._non_empty
        other = self._twin()
        other.__dict__.pop("_graph", None)
        if self._has_padding and not torch.compiler.is_compiling():
            other.__dict__.pop("log_probs", None)
            other.__dict__["_current"] = log_probs
        else:
            other.__dict__["log_probs"] = self._without_padding(log_probs) if self._has_padding else log_probs
        if entropies is not None:
            other.__dict__["entropies"] = self._without_padding(entropies) if self._has_padding else entropies
        return other

    def trimmed(self) -> TokenBatch:
        """The batch without the columns that are padding in every sequence, for one evaluation.

        Sums over it are bitwise independent of how far a collator padded. Ratios are computed once and kept, with
        their graph: it serves one backward pass, so take a new one for the next.
        """
        other = self._twin()
        object.__setattr__(other, "_graph", {})
        if self.width < self.mask.shape[-1]:
            object.__setattr__(other, "_padded_width", self.padded_width)
            for name in ("log_probs", "mask", *_TOKEN_FIELDS):
                value = getattr(self, name)
                if value is not None:
                    object.__setattr__(other, name, value[..., : self.width])
            other.__dict__.pop("_current", None)
            for name in (*_OF_MASK, "_of_samples"):
                other.__dict__.pop(name, None)
        return other

    def _twin(self) -> TokenBatch:
        # What copy.copy does, in a fifth of the time; an inner loop makes two of them per update.
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        graph: dict[str, Tensor] | None = self.__dict__.get("_graph")
        if graph is None:
            return compute()
        if name not in graph:
            # The first reader may be a metric under no_grad; the loss still needs the gradient.
            with torch.enable_grad():
                graph[name] = compute()
        return graph[name]

    # -- validation ------------------------------------------------------------------------------------------

    @cached_property
    def _has_padding(self) -> bool:
        return bool((self._counts < self.mask.shape[-1]).any())

    @cached_property
    def _counts(self) -> Tensor:
        return self.mask.sum(-1)

    @cached_property
    def _of_mask(self) -> dict[object, Tensor]:
        """The mask in other forms, shared by all batches that differ in the current policy alone."""
        return {}

    @cached_property
    def _of_samples(self) -> dict[str, Tensor]:
        """What depends on the sampled tokens, shared by all batches that differ in the current policy alone."""
        return {}

    def _without_padding(self, values: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return values.masked_fill(~self.mask, 0)
        kept: Tensor = _KeepBits.apply(values, self._bits(values.dtype))  # type: ignore[no-untyped-call]
        return kept

    def _bits(self, dtype: torch.dtype) -> Tensor:
        """Integers as wide as the numbers, all bits set at response tokens."""
        if dtype not in self._of_mask:
            self._of_mask[dtype] = self.mask.to(_BITS[dtype]).neg_()
        return self._of_mask[dtype]

    def _one_per_token(self, advantages: Tensor) -> Tensor:
        # An empty response may have any advantage, NaN included.
        known = advantages.where(self.lengths > 0, 0) if self._has_padding else advantages
        per_response = known.unsqueeze(-1)
        object.__setattr__(self, "_response_advantages", per_response)
        return per_response.expand_as(self.mask)

    def _check_mask(self) -> None:
        log_probs, mask = self.log_probs, self.mask
        if not isinstance(log_probs, Tensor) or log_probs.dim() < 2 or not log_probs.is_floating_point():
            raise BatchError(
                f"log_probs is {_describe(log_probs)}; expected a floating-point tensor (..., B, T): "
                "sequences by token positions, after any replica dimensions"
            )
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise BatchError(
                f"mask is {_describe(mask)}; expected a bool tensor (..., B, T), True on response tokens. "
                "Convert a 0/1 mask with mask.bool()"
            )
        if mask.shape != log_probs.shape:
            raise BatchError(
                f"mask has shape {tuple(mask.shape)}; expected {tuple(log_probs.shape)} as log_probs (..., B, T)"
            )
        counted_elsewhere = self.token_count is not None and self.sequence_count is not None
        if not counted_elsewhere and not bool((self._counts.sum(-1) > 0).all()):
            raise BatchError(
                "mask marks no response token in at least one batch; a mean over nothing is not 0. "
                "Drop the batch, or pass token_count and sequence_count of the whole optimiser step"
            )

    def _checked(self, name: str, value: Tensor) -> Tensor:
        expected = self.log_probs.shape
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise BatchError(f"{name} is {_describe(value)}; expected a floating-point tensor (..., B, T)")
        if name == "advantages" and value.dim() == len(expected) - 1:
            if value.shape != expected[:-1]:
                raise BatchError(
                    f"advantages has shape {tuple(value.shape)}; expected {tuple(expected[:-1])} (one value per "
                    f"response) or {tuple(expected)} (one per token)"
                )
            value = self._one_per_token(_widened(value).detach())
        if value.shape != expected:
            raise BatchError(
                f"{name} has shape {tuple(value.shape)}; expected {tuple(expected)} as log_probs (..., B, T). "
                "Are the tokens shifted by one, or the prompt still attached?"
            )
        value = _widened(value)
        if name not in _DIFFERENTIABLE:
            value = value.detach()
        if self._has_padding:
            value = self._without_padding(value)
        # One infinity or NaN makes a sum infinite or NaN. Finite numbers can overflow it, hence the second look.
        plain = value.detach()
        if not bool(plain.sum().isfinite()) and not bool(plain.isfinite().all()):
            raise BatchError(
                f"{name} holds NaN or infinity at a response token; expected finite numbers. "
                "Look for log(0), or for positions the mask should exclude"
            )
        return value

    def _check_groups(self) -> None:
        groups, expected = self.groups, self.mask.shape[:-1]
        if groups is None:
            return
        whole = isinstance(groups, Tensor) and not (groups.is_floating_point() or groups.dtype == torch.bool)
        if not whole or not _broadcasts(groups.shape, expected) or groups.shape[-1:] != expected[-1:]:
            raise BatchError(
                f"groups is {_describe(groups)}; expected integers {tuple(expected)}, one per response: "
                "the prompt it answers"
            )

    def _check_count(self, name: str, value: Tensor | float | None) -> None:
        if value is None:
            return
        replicas = self.log_probs.shape[:-2]
        if not isinstance(value, Tensor | int | float) or isinstance(value, bool):
            raise BatchError(
                f"{name} is {value!r}; expected a number, or one per replica as a tensor {tuple(replicas)}"
            )
        count = torch.as_tensor(value)
        if not _broadcasts(count.shape, replicas):
            raise BatchError(
                f"{name} has shape {tuple(count.shape)}; expected a number, or one per replica, {tuple(replicas)}"
            )
        if not bool(((count > 0) & count.isfinite()).all()):
            raise BatchError(
                f"{name} is {count.tolist()}; expected what the whole optimiser step has, at least 1: it is a divisor. "
                "Skip a step without responses"
            )

    def _count(self, given: Tensor | int | None, own: Tensor) -> Tensor:
        if given is None:
            return own
        if isinstance(given, Tensor):
            return given.to(own)
        return torch.full_like(own, given)


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(target), strict=False)
    )


_DEFAULTS = {item.name: item.default for item in dataclasses.fields(TokenBatch)}
_OF_MASK = ("lengths", "width", "_counts", "_of_mask", "_has_padding", "_divisors", "_non_empty")


def clamp_log_ratio(values: Tensor) -> Tensor:
    """The log-ratio of a response, held at ±20, with zero gradient beyond.

    >>> clamp_log_ratio(torch.tensor([-25.0, 0.5])).tolist()
    [-20.0, 0.5]
    """
    return values.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def gradient_through_clamp(gradient: Tensor, difference: Tensor) -> Tensor:
    """The gradient for log p of one for the clamped log-ratio: 0 where |log p - log q| ≥ 20."""
    # The gradient of hardtanh is that of clamp at a third of the cost, and 0 on the bounds themselves.
    return torch.ops.aten.hardtanh_backward(gradient, difference, -MAX_LOG_RATIO, MAX_LOG_RATIO)  # type: ignore[no-any-return]


class _ClampedDifference(torch.autograd.Function):
    """`(log_probs - old_log_probs).clamp(-20, 20)`, 0 where `bits` is 0, in one tensor instead of three.

    A fresh tensor costs more than the arithmetic on it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(log_probs: Tensor, old_log_probs: Tensor, bits: Tensor | None) -> Tensor:
        difference = (log_probs - old_log_probs).clamp_(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        if bits is not None:
            difference.view(bits.dtype).bitwise_and_(bits)
        return difference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.bits = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (clamped,) = ctx.saved_tensors
        passed = gradient_through_clamp(gradient, clamped)
        if ctx.bits is not None:
            if torch.is_grad_enabled():
                passed = _KeepBits.apply(passed, ctx.bits)  # type: ignore[no-untyped-call]
            else:
                passed.view(ctx.bits.dtype).bitwise_and_(ctx.bits)
        return passed, None, None


class _Difference(torch.autograd.Function):
    """`log_probs - old_log_probs`, 0 where `bits` is 0, in one tensor instead of two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_probs: Tensor, old_log_probs: Tensor, bits: Tensor | None) -> Tensor:
        difference = log_probs - old_log_probs
        if bits is not None:
            difference.view(bits.dtype).bitwise_and_(bits)
        return difference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        # Not save_for_backward: what it keeps is freed by the first backward pass.
        ctx.bits = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.bits is None:
            return gradient, None, None
        masked: Tensor = _KeepBits.apply(gradient, ctx.bits)  # type: ignore[no-untyped-call]
        return masked, None, None


class _AtResponseTokens(torch.autograd.Function):
    """`values * numbers`, `(..., B, 1)` spread over the tokens of each response.

    A mean or a sum over tokens hands back one gradient per response, expanded; the sum over its tokens is then a
    product with the length, and the tokens need not be visited.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, numbers: Tensor, lengths: Tensor) -> Tensor:
        return values * numbers

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        # Not save_for_backward: what it keeps is freed by the first backward pass.
        ctx.numbers, ctx.lengths = inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if gradient.stride(-1) == 0:
            return gradient[..., :1] * ctx.lengths.unsqueeze(-1), None, None
        return (gradient * ctx.numbers).sum(-1, keepdim=True), None, None


_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class _KeepBits(torch.autograd.Function):
    """`masked_fill` as a bitwise and: 0 where `bits` is 0, unchanged where all its bits are set.

    It vectorises, which makes it ten times as fast on a processor, and its graph survives a backward pass, so that one
    batch serves any number of objectives.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, bits: Tensor) -> Tensor:
        return (values.view(bits.dtype) & bits).view(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        # Not save_for_backward: what it keeps is freed by the first backward pass.
        ctx.bits = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            # Someone differentiates twice.
            again: Tensor = _KeepBits.apply(gradient, ctx.bits)  # type: ignore[no-untyped-call]
            return again, None
        # Into a tensor of its own: a view of another could not become the leaf's gradient without a copy.
        kept = torch.empty_like(gradient)
        torch.bitwise_and(gradient.view(ctx.bits.dtype), ctx.bits, out=kept.view(ctx.bits.dtype))
        return kept, None


def _widened(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
