"""Log-probability and entropy of sampled tokens, from logits or straight from hidden states, in little memory.

Automatic differentiation of `log_softmax` keeps several matrices of tokens by vocabulary alive until the backward
pass. The two functions here keep two floats per token, log Z and the entropy, and recompute the softmax in the
backward pass, a block of rows at a time. From hidden states, and on a CUDA device, they keep three, log Z in two parts,
and never hold more logits than a tile of some rows and some columns; see `token_statistics_torch` and
`token_statistics_gpu`. With g and g_H the gradients of the two outputs and τ the temperature:

    ∂L/∂z = ( g·onehot - p·(g + g_H·(log p + H)) ) / τ

Where it is asked for, the same pass gives κ = Σ p²(log p + H): what a first-order change of entropy needs beside log p
and H of the sampled token, a constant without a gradient.

Entropies are taken in the shifted form H = log Z - Σ e·(z - m)/Z with e = exp(z - m), m = max z and Z = Σ e: all its
terms are small where the distribution is sharp, which `logsumexp - Σ p·z` cannot say of its own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from testbed import token_statistics_gpu as gpu
from testbed import token_statistics_torch as plain
from testbed.errors import BatchError, ConfigError

__all__ = ["TokenStatistics", "TokenStatisticsWithKappas", "token_statistics", "token_statistics_from_hidden"]


class TokenStatistics(NamedTuple):
    """What `token_statistics` returns.

    Attributes:
        log_probs: `(...)`, natural log-probability of the token.
        entropies: `(...)`, nats, entropy of the whole distribution at the position.
    """

    log_probs: Tensor
    entropies: Tensor


class TokenStatisticsWithKappas(NamedTuple):
    """What `token_statistics` returns where κ is wanted as well.

    Attributes:
        log_probs: `(...)`, natural log-probability of the token.
        entropies: `(...)`, nats, entropy of the whole distribution at the position.
        kappas: `(...)`, κ = Σ_v p_v²(log p_v + H), nats; a constant.
    """

    log_probs: Tensor
    entropies: Tensor
    kappas: Tensor


@overload
def token_statistics(
    logits: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    overwrite_logits: bool | None = None,
    check: bool = True,
    with_kappas: Literal[False] = False,
) -> TokenStatistics: ...


@overload
def token_statistics(
    logits: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    overwrite_logits: bool | None = None,
    check: bool = True,
    with_kappas: Literal[True],
) -> TokenStatisticsWithKappas: ...


def token_statistics(
    logits: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    overwrite_logits: bool | None = None,
    check: bool = True,
    with_kappas: bool = False,
) -> TokenStatistics | TokenStatisticsWithKappas:
    """Log p(token) and H(p) of p = softmax(z/τ), both differentiable in the logits.

    Half-precision logits are widened to float32 block by block; the results are then float32 and the gradient has the
    dtype of the logits. An infinitely negative logit is a token that cannot be drawn.

    Args:
        logits: z, float `(..., V)`.
        tokens: int64 `(...)`, each in 0..V-1. Padding needs a valid id as well; mask the result.
        temperature: τ > 0, what the logits are divided by.
        overwrite_logits: whether the backward pass writes the gradient over the logits instead of allocating as much
            again. None: where nothing else can read them any more, that is, where the caller has let go of the tensor,
            no other tensor shares its memory, no other operation saved it and the graph is not kept. True: always;
            logits are then destroyed, and an operation that saved them for its own gradient raises. A leaf keeps its
            values in any case.
        check: False: rows of logits that are no distribution give NaN instead of an error, for a trainer that must
            stay in step with others and refuse the update later. On a CUDA device so do tokens outside the vocabulary,
            and nothing waits for the device.
        with_kappas: whether the result has κ, for one more sum over the vocabulary.

    Raises:
        BatchError: shapes differ, a token is outside the vocabulary, or a row of logits holds NaN, +infinity or nothing
            but -infinity.
        ConfigError: the temperature is not positive.

    Example:
        >>> log_probs, entropies = token_statistics(torch.zeros(1, 4), torch.tensor([2]))
        >>> round(log_probs.item(), 4), round(entropies.item(), 4)  # -log 4, log 4
        (-1.3863, 1.3863)
    """
    if logits.dim() == 0 or not logits.is_floating_point() or logits.shape[:-1] != tokens.shape:
        raise BatchError(
            f"logits has shape {tuple(logits.shape)} and dtype {logits.dtype}, tokens has shape {tuple(tokens.shape)}; "
            "expected floating-point logits (..., V) and one token per row, (...)"
        )
    _check(tokens, logits.shape[-1], temperature, reading=not gpu.usable(logits))
    if gpu.usable(logits) and logits.stride(-1) != 1:
        logits = logits.contiguous()
    if logits.is_leaf or 0 in logits.stride():
        overwrite_logits = False
    results = _FromLogits.apply(logits, tokens.reshape(-1), temperature, overwrite_logits, with_kappas)  # type: ignore[no-untyped-call]
    if check:
        _check_results(results[0], tokens, logits.shape[-1])
    return _named(results, tokens.shape, with_kappas)


@overload
def token_statistics_from_hidden(
    hidden: Tensor,
    lm_head_weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    check: bool = True,
    with_kappas: Literal[False] = False,
) -> TokenStatistics: ...


@overload
def token_statistics_from_hidden(
    hidden: Tensor,
    lm_head_weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    check: bool = True,
    with_kappas: Literal[True],
) -> TokenStatisticsWithKappas: ...


def token_statistics_from_hidden(
    hidden: Tensor,
    lm_head_weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    check: bool = True,
    with_kappas: bool = False,
) -> TokenStatistics | TokenStatisticsWithKappas:
    """`token_statistics` of z = h·Wᵀ + b, without ever holding more than a tile of the logits.

    Differentiable in the hidden states, the weight and the bias. The backward pass multiplies once more instead of
    remembering. The product is taken in the dtype of the hidden states, or that of an enclosing autocast, as the
    model's own head would; everything after it, and the sums that make up a gradient, in float32 at least.

    Args:
        hidden: h, float `(..., D)`: the state from which the token was predicted, one position before the token.
        lm_head_weight: W, float `(V, D)`.
        tokens: int64 `(...)`, each in 0..V-1.
        temperature: τ > 0, what the logits are divided by.
        bias: b, float `(V,)`.
        check: as in `token_statistics`.
        with_kappas: as in `token_statistics`.

    Raises:
        BatchError: as `token_statistics`; NaN in a hidden state or a weight shows up as NaN in the logits.
        ConfigError: the temperature is not positive.

    Example:
        >>> hidden, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> token_statistics_from_hidden(hidden, weight, torch.tensor([0])).log_probs  # -log(1 + 1/e)
        tensor([-0.3133])
    """
    if hidden.dim() == 0 or hidden.shape[:-1] != tokens.shape or lm_head_weight.shape[1:] != hidden.shape[-1:]:
        raise BatchError(
            f"hidden has shape {tuple(hidden.shape)}, lm_head_weight {tuple(lm_head_weight.shape)}, tokens "
            f"{tuple(tokens.shape)}; expected (..., D), (V, D) and (...)"
        )
    _check(tokens, lm_head_weight.shape[0], temperature, reading=not gpu.usable(hidden))
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        results = _FromHidden.apply(  # type: ignore[no-untyped-call]
            hidden.reshape(-1, hidden.shape[-1]),
            lm_head_weight,
            bias,
            tokens.reshape(-1),
            temperature,
            dtype,
            with_kappas,
        )
    if check:
        _check_results(results[0], tokens, lm_head_weight.shape[0])
    return _named(results, tokens.shape, with_kappas)


def _named(
    results: tuple[Tensor, Tensor, Tensor | None], shape: torch.Size, with_kappas: bool
) -> TokenStatistics | TokenStatisticsWithKappas:
    viewed = [result.view(shape) for result in results if result is not None]
    return TokenStatisticsWithKappas(*viewed) if with_kappas else TokenStatistics(*viewed)


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, temperature: float, overwrite: bool | None, with_kappas: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        read = gpu.read if gpu.usable(logits) else plain.read
        parts = [read(matrix, tokens[rows], temperature, with_kappas) for matrix, rows in _matrices(logits)]
        log_probs, *kept = _joined([saved for saved, _ in parts])
        kappas = _joined([[value] for _, value in parts if value is not None])
        ctx.save_for_backward(logits, tokens, *kept)
        ctx.temperature, ctx.overwrite = temperature, overwrite
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*kappas)
        return log_probs, kept[0], kappas[0] if kappas else None

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g: Tensor | None, g_entropy: Tensor | None, _: None
    ) -> tuple[Tensor | None, None, None, None, None]:
        if g is None and g_entropy is None:
            return None, None, None, None, None
        overwrite = _nobody_else_reads(ctx) if ctx.overwrite is None else ctx.overwrite
        logits, tokens, *kept = ctx.saved_tensors
        # Through .data, the logits' version stays as it was and nobody would notice; through detach() autograd does.
        gradient = logits.detach() if overwrite else torch.empty_like(logits, memory_format=torch.contiguous_format)
        write = gpu.write_gradient if gpu.usable(logits) else plain.write_gradient
        for matrix, rows in _matrices(logits):
            out = matrix if overwrite else gradient.view(-1, logits.shape[-1])[rows]
            slopes = None if g is None else g[rows], None if g_entropy is None else g_entropy[rows]
            write(matrix, tokens[rows], ctx.temperature, [value[rows] for value in kept], slopes, out)
        return gradient, None, None, None, None


class _FromHidden(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        dtype: torch.dtype,
        with_kappas: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        given = hidden, weight, bias
        read = gpu.read_from_hidden if _by_kernels(hidden, dtype) else plain.read_from_hidden
        (log_probs, *kept), kappas = read(*given, tokens, temperature, dtype, with_kappas)
        ctx.save_for_backward(*given, tokens, *kept)
        ctx.temperature, ctx.dtype = temperature, dtype
        ctx.set_materialize_grads(False)
        if kappas is not None:
            ctx.mark_non_differentiable(kappas)
        return log_probs, kept[0], kappas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_entropy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if g is None and g_entropy is None:
            return None, None, None, None, None, None, None
        hidden, weight, bias, tokens, *kept = ctx.saved_tensors
        write = gpu.gradients_from_hidden if _by_kernels(hidden, ctx.dtype) else plain.gradients_from_hidden
        known = tokens, ctx.temperature, ctx.dtype, kept
        with torch.autocast(hidden.device.type, enabled=False):
            gradients = write(hidden, weight, bias, *known, (g, g_entropy), ctx.needs_input_grad[:3])
        return (*gradients, None, None, None, None)


def _by_kernels(hidden: Tensor, dtype: torch.dtype) -> bool:
    return gpu.usable(hidden) and dtype != torch.float64


def _joined(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The tensors of all parts, each of all rows; nothing of nothing."""
    return list(parts[0]) if len(parts) == 1 else [torch.cat(values) for values in zip(*parts, strict=True)]


def _matrices(values: Tensor, start: int = 0) -> list[tuple[Tensor, slice]]:
    """Views `(n, V)` that together hold every row of `(..., V)`, and where their rows are when all are counted."""
    rows = values.numel() // max(values.shape[-1], 1)
    try:
        return [(values.view(rows, values.shape[-1]), slice(start, start + rows))]
    except RuntimeError:
        # Such as logits[:, :-1]: a gap after every sequence.
        step = rows // len(values)
        return [matrix for index, part in enumerate(values) for matrix in _matrices(part, start + index * step)]


def _holders(ctx: Any) -> tuple[int, int, int]:
    """How many hold the first saved tensor: as an object of PyTorch, by its memory, and as an object of Python."""
    saved = ctx.saved_tensors[0]
    memory = torch._C._storage_Use_Count(saved.untyped_storage()._cdata)
    return saved._use_count(), memory, sys.getrefcount(saved)


class _Probe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, seen: list[tuple[int, int, int]]) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.seen = seen
        return logits.sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        ctx.seen.append(_holders(ctx))
        return g.expand_as(ctx.saved_tensors[0]), None


@functools.cache
def _counts_alone() -> tuple[int, int, int] | None:
    """What `_holders` counts for logits that only the graph still has; None where PyTorch does not tell.

    Measured, because the numbers are those of this release of PyTorch and Python.
    """
    seen: list[tuple[int, int, int]] = []
    try:
        for kept in ([], [torch.Tensor()]):
            with torch.enable_grad():
                logits = torch.zeros(1, 1, requires_grad=True) + 0
                kept[:] = [logits] if kept else []
                loss = _Probe.apply(logits, seen)  # type: ignore[no-untyped-call]
            del logits
            loss.backward()
    except (AttributeError, TypeError):
        return None
    alone, held = seen
    return alone if alone != held else None


def _nobody_else_reads(ctx: Any) -> bool:
    """Whether the saved logits end with this backward pass."""
    alone = _counts_alone()
    kept = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()
    return alone is not None and not kept and _holders(ctx) == alone


def _check(tokens: Tensor, vocabulary: int, temperature: float, reading: bool) -> None:
    """Check what was given; `reading` the tokens makes a program wait for the device they are on."""
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}; expected a positive number, such as 1.0")
    if tokens.dtype != torch.int64:
        raise BatchError(f"tokens is a {tokens.dtype} tensor; expected int64 token ids")
    if reading:
        _check_range(tokens, vocabulary)


def _check_range(tokens: Tensor, vocabulary: int) -> None:
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary):
        raise BatchError(
            f"tokens holds ids from {int(tokens.min())} to {int(tokens.max())}; expected 0 to {vocabulary - 1} for a "
            f"vocabulary of {vocabulary}. Replace an ignored label such as -100 by 0 and mask the result, and check "
            "that model and tokenizer belong together"
        )


def _check_results(log_probs: Tensor, tokens: Tensor, vocabulary: int) -> None:
    """A row of logits that is no distribution has no log-probability and no entropy."""
    missing = log_probs.detach().isnan()
    if bool(missing.any()):
        _check_range(tokens, vocabulary)
        raise BatchError(
            f"{int(missing.sum())} of {missing.numel()} rows of logits hold NaN, +infinity or nothing but -infinity; "
            "expected finite logits. Look at the step before: an exploding update, or an overflow in half precision"
        )
