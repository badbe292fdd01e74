"""What a mask of response tokens says, found out once, and the kernels that apply it with and without a graph.

Shapes are those of `testbed.batch`: `(..., B, T)`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

__all__ = ["MAX_LOG_RATIO", "ResponseMask", "clamp_log_ratio", "gradient_through_clamp"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ±20: exp(20) ≈ 4.9e8 is finite in float32, and beyond it the gradient is zero."""


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


class ResponseMask:
    """A mask, and whatever depends on it alone: computed when first asked for, and never again.

    Args:
        mask: bool `(..., B, T)`, True on response tokens.
        dtype: of the numbers it is turned into.

    Example:
        >>> mask = ResponseMask(torch.tensor([[True, True, False], [True, False, False]]), torch.float32)
        >>> mask.lengths.tolist(), mask.width, mask.has_padding
        ([2.0, 1.0], 2, True)
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        self.tokens = mask
        self.dtype = dtype
        self._bits: dict[torch.dtype, Tensor] = {}

    @cached_property
    def counts(self) -> Tensor:
        """Response tokens of each sequence; int64 `(..., B)`."""
        return self.tokens.sum(-1)

    @cached_property
    def lengths(self) -> Tensor:
        """n_i, the same as float `(..., B)`."""
        return self.counts.to(self.dtype)

    @cached_property
    def has_padding(self) -> bool:
        """Whether any position is masked."""
        return bool((self.counts < self.tokens.shape[-1]).any())

    @cached_property
    def width(self) -> int:
        """Columns up to the last response token of any sequence; columns beyond it are padding everywhere."""
        if not bool((self.counts < self.tokens.shape[-1]).all()):
            return self.tokens.shape[-1]
        used = self.tokens.reshape(-1, self.tokens.shape[-1]).any(0).nonzero()
        return int(used[-1]) + 1 if used.numel() else self.tokens.shape[-1]

    @cached_property
    def divisors(self) -> Tensor:
        """n_i where it is not 0, else 1; float `(..., B, 1)`."""
        return self.lengths.clamp(min=1).unsqueeze(-1)

    @cached_property
    def total_tokens(self) -> Tensor:
        """N, float `(...,)`."""
        return self.lengths.sum(-1)

    @cached_property
    def total_sequences(self) -> Tensor:
        """Non-empty responses, float `(...,)`."""
        return (self.lengths > 0).sum(-1, dtype=self.dtype)

    @cached_property
    def numbers(self) -> Tensor:
        """1 at response tokens and 0 elsewhere, float `(..., B, T)`."""
        return self.tokens.to(self.dtype)

    @cached_property
    def trimmed(self) -> ResponseMask:
        """Without the columns that are padding in every sequence."""
        return ResponseMask(self.tokens[..., : self.width], self.dtype) if self.width < self.tokens.shape[-1] else self

    def prepare(self) -> None:
        """Find out now what a compiler cannot, because it depends on values or is kept."""
        _ = self.has_padding, self.trimmed, self.divisors, self.total_tokens, self.total_sequences

    def keep(self, values: Tensor) -> Tensor:
        """The values at response tokens and 0 elsewhere, whatever stood there."""
        if not self.has_padding:
            return values
        if torch.compiler.is_compiling():
            return values.masked_fill(~self.tokens, 0)
        kept: Tensor = _KeepBits.apply(values, self._bits_for(values.dtype))  # type: ignore[no-untyped-call]
        return kept

    def difference(self, values: Tensor, subtracted: Tensor, *, masked: bool, clamped: bool) -> Tensor:
        """`values - subtracted`, 0 where masked, in one tensor instead of up to three.

        Args:
            values: differentiable.
            subtracted: a constant, 0 where masked.
            masked: whether `values` is 0 where masked already.
            clamped: whether the difference is held at ±20, with zero gradient beyond.
        """
        function = _ClampedDifference if clamped else _Difference
        found: Tensor = function.apply(values, subtracted, None if masked else self._bits_for(values.dtype))  # type: ignore[no-untyped-call]
        return found

    def spread(self, values: Tensor) -> Tensor:
        """One value per response, `(..., B, 1)`, at each of its tokens; `(..., B, T)`, 0 where masked."""
        if not self.has_padding:
            return values.expand(*values.shape[:-1], self.tokens.shape[-1])
        spread: Tensor = _AtResponseTokens.apply(values, self.numbers, self.lengths)  # type: ignore[no-untyped-call]
        return spread

    def _bits_for(self, dtype: torch.dtype) -> Tensor:
        """Integers as wide as the numbers, all bits set at response tokens."""
        if dtype not in self._bits:
            self._bits[dtype] = self.tokens.to(_BITS[dtype]).neg_()
        return self._bits[dtype]


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


class _ClampedDifference(torch.autograd.Function):
    """`(values - subtracted).clamp(-20, 20)`, 0 where `bits` is 0.

    A fresh tensor costs more than the arithmetic on it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, subtracted: Tensor, bits: Tensor | None) -> Tensor:
        difference = (values - subtracted).clamp_(-MAX_LOG_RATIO, MAX_LOG_RATIO)
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
    """`values - subtracted`, 0 where `bits` is 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, subtracted: Tensor, bits: Tensor | None) -> Tensor:
        difference = values - subtracted
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
