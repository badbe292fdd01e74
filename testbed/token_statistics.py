"""Log-probability and entropy of sampled tokens, from logits or straight from hidden states, in little memory.

Automatic differentiation of `log_softmax` keeps several matrices of tokens by vocabulary alive until the backward
pass. The two functions here keep two floats per token, log Z and the entropy, and recompute the softmax in the
backward pass, a block of rows at a time (on a CUDA device three, log Z in two parts; see `token_statistics_gpu`). With
g and g_H the gradients of the two outputs and τ the temperature:

    ∂L/∂z = ( g·onehot - p·(g + g_H·(log p + H)) ) / τ

Entropies are taken in the shifted form H = log Z - Σ e·(z - m)/Z with e = exp(z - m), m = max z and Z = Σ e: all its
terms are small where the distribution is sharp, which `logsumexp - Σ p·z` cannot say of its own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from testbed import token_statistics_gpu as gpu
from testbed.errors import BatchError, ConfigError

__all__ = ["TokenStatistics", "token_statistics", "token_statistics_from_hidden"]

_CACHED_ELEMENTS = 2**17
"""Elements per block of elementwise work: two float32 blocks, 1 MiB, stay within a second-level cache."""
_PROJECTED_ELEMENTS = 2**23
"""Logits computed at a time from hidden states: enough rows for an efficient matrix product, 32 MiB of float32."""
_ACCELERATOR_FACTOR = 16
"""How much larger both are on a device that hides latency by size."""
_FEWEST_ROWS = 64
"""Rows per projection below which reading the weight, not multiplying by it, takes the time."""
_FLOOR = -1e4
"""Stands for log 0: its exponential is 0 in every dtype, and 0 times it is 0 where 0 times -inf would be NaN."""


class TokenStatistics(NamedTuple):
    """What `token_statistics` returns.

    Attributes:
        log_probs: `(...)`, natural log-probability of the token.
        entropies: `(...)`, nats, entropy of the whole distribution at the position.
    """

    log_probs: Tensor
    entropies: Tensor


def token_statistics(
    logits: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    overwrite_logits: bool | None = None,
    check: bool = True,
) -> TokenStatistics:
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
    results = _FromLogits.apply(logits, tokens.reshape(-1), temperature, overwrite_logits)  # type: ignore[no-untyped-call]
    if check:
        _check_results(results[0], tokens, logits.shape[-1])
    return TokenStatistics(*(result.view(tokens.shape) for result in results))


def token_statistics_from_hidden(
    hidden: Tensor,
    lm_head_weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    check: bool = True,
) -> TokenStatistics:
    """`token_statistics` of z = h·Wᵀ + b, without ever holding more than a block of the logits.

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
            hidden.reshape(-1, hidden.shape[-1]), lm_head_weight, bias, tokens.reshape(-1), temperature, dtype
        )
    if check:
        _check_results(results[0], tokens, lm_head_weight.shape[0])
    return TokenStatistics(*(result.view(tokens.shape) for result in results))


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, temperature: float, overwrite: bool | None
    ) -> tuple[Tensor, Tensor]:
        read = gpu.read if gpu.usable(logits) else _read
        parts = [read(matrix, tokens[rows], temperature) for matrix, rows in _matrices(logits)]
        log_probs, *kept = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        ctx.save_for_backward(logits, tokens, *kept)
        ctx.temperature, ctx.overwrite = temperature, overwrite
        ctx.set_materialize_grads(False)
        return log_probs, kept[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_entropy: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if g is None and g_entropy is None:
            return None, None, None, None
        overwrite = _nobody_else_reads(ctx) if ctx.overwrite is None else ctx.overwrite
        logits, tokens, *kept = ctx.saved_tensors
        # Through .data, the logits' version stays as it was and nobody would notice; through detach() autograd does.
        gradient = logits.detach() if overwrite else torch.empty_like(logits, memory_format=torch.contiguous_format)
        write = gpu.write_gradient if gpu.usable(logits) else _write_gradient
        for matrix, rows in _matrices(logits):
            out = matrix if overwrite else gradient.view(-1, logits.shape[-1])[rows]
            slopes = None if g is None else g[rows], None if g_entropy is None else g_entropy[rows]
            write(matrix, tokens[rows], ctx.temperature, [value[rows] for value in kept], slopes, out)
        return gradient, None, None, None


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
    ) -> tuple[Tensor, Tensor]:
        given = hidden, weight, bias
        if gpu.usable(hidden) and dtype != torch.float64:
            saved: tuple[Tensor, ...] = gpu.read_from_hidden(*given, tokens, temperature, dtype)
        else:
            hidden, weight, bias = _cast(given, dtype)
            block = _projection_buffer(hidden, weight)
            saved = _allocate(hidden)
            for rows in _blocks(len(hidden), len(block)):
                logits = _project(hidden[rows], weight, bias, block)
                for value, part in zip(saved, _read(logits, tokens[rows], temperature), strict=True):
                    value[rows] = part
        log_probs, *kept = saved
        ctx.save_for_backward(*given, tokens, *kept)
        ctx.temperature, ctx.dtype = temperature, dtype
        ctx.set_materialize_grads(False)
        return log_probs, kept[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, *kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if g is None and g_entropy is None:
            return None, None, None, None, None, None
        if gpu.usable(hidden) and ctx.dtype != torch.float64:
            gradients = gpu.gradients_from_hidden(
                hidden, weight, bias, tokens, ctx.temperature, ctx.dtype, kept, (g, g_entropy), wanted
            )
            return (*gradients, None, None, None)
        given = hidden, weight, bias
        hidden, weight, bias = _cast(given, ctx.dtype)
        # Sums over many blocks need more digits than half precision has.
        wide = _wide(hidden.dtype)
        for_hidden, for_weight, for_bias = (
            torch.zeros_like(value, dtype=wide) if needed else None for value, needed in zip(given, wanted, strict=True)
        )
        block = _projection_buffer(hidden, weight)
        for rows in _blocks(len(hidden), len(block)):
            logits = _project(hidden[rows], weight, bias, block)
            here = [value[rows] for value in kept]
            slopes = None if g is None else g[rows], None if g_entropy is None else g_entropy[rows]
            _write_gradient(logits, tokens[rows], ctx.temperature, here, slopes, logits)
            if for_hidden is not None:
                for_hidden[rows] = logits @ weight
            if for_weight is not None:
                if wide == hidden.dtype:
                    for_weight.addmm_(logits.T, hidden[rows])
                else:
                    for_weight += logits.T @ hidden[rows]
            if for_bias is not None:
                for_bias += logits.sum(0, dtype=wide)
        sums = (for_hidden, for_weight, for_bias)
        cast = (None if value is None else value.to(like.dtype) for value, like in zip(sums, given, strict=True))
        return (*cast, None, None, None)


def _matrices(values: Tensor, start: int = 0) -> list[tuple[Tensor, slice]]:
    """Views `(n, V)` that together hold every row of `(..., V)`, and where their rows are when all are counted."""
    rows = values.numel() // max(values.shape[-1], 1)
    try:
        return [(values.view(rows, values.shape[-1]), slice(start, start + rows))]
    except RuntimeError:
        # Such as logits[:, :-1]: a gap after every sequence.
        step = rows // len(values)
        return [matrix for index, part in enumerate(values) for matrix in _matrices(part, start + index * step)]


def _read(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and normalisers log Σ exp((z - m)/τ) of logits `(N, V)`, block by block."""
    log_probs, entropies, normalisers = _allocate(logits)
    size = _rows_per_block(logits, _CACHED_ELEMENTS, fewest=1)
    shifted, weights = (_scratch(logits, size) for _ in range(2))
    for rows in _blocks(len(logits), size):
        count = rows.stop - rows.start
        z, e = _shift(logits[rows], temperature, shifted[:count]), weights[:count]
        chosen = z.gather(-1, tokens[rows].unsqueeze(-1)).squeeze(-1)
        torch.exp(z, out=e)
        total = e.sum(-1)
        mean = e.mul_(z).sum(-1) / total
        if bool(mean.isnan().any()):
            # Zero times -infinity, or real trouble: NaN then remains in the total and is reported by the caller.
            torch.exp(z.clamp_(min=_FLOOR), out=e)
            mean = e.mul_(z).sum(-1) / total
        torch.log(total, out=normalisers[rows])
        torch.sub(chosen, normalisers[rows], out=log_probs[rows])
        torch.sub(normalisers[rows], mean, out=entropies[rows])
    return log_probs, entropies, normalisers


def _write_gradient(
    logits: Tensor,
    tokens: Tensor,
    temperature: float,
    known: Sequence[Tensor],
    slopes: tuple[Tensor | None, Tensor | None],
    out: Tensor,
) -> None:
    """Write ∂L/∂z `(N, V)` into `out`, which may be `logits`, block by block; entropies and normalisers are known."""
    (entropies, normalisers), (g, g_entropy) = known, slopes
    size = _rows_per_block(logits, _CACHED_ELEMENTS, fewest=1)
    log_p_buffer, p_buffer = (_scratch(logits, size) for _ in range(2))
    for rows in _blocks(len(logits), size):
        count = rows.stop - rows.start
        log_p, p = log_p_buffer[:count], p_buffer[:count]
        _shift(logits[rows], temperature, log_p).sub_(normalisers[rows].unsqueeze(-1))
        torch.exp(log_p, out=p)
        slope = torch.zeros_like(normalisers[rows]) if g is None else g[rows].to(p.dtype) / temperature
        if g_entropy is None:
            p *= -slope.unsqueeze(-1)
        else:
            of_entropy = g_entropy[rows].to(p.dtype) / temperature
            offset = torch.addcmul(slope, of_entropy, entropies[rows])
            log_p.clamp_(min=_FLOOR).mul_(-of_entropy.unsqueeze(-1)).sub_(offset.unsqueeze(-1))
            p *= log_p
        p.scatter_add_(-1, tokens[rows].unsqueeze(-1), slope.unsqueeze(-1))
        out[rows] = p


def _shift(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """(z - m)/τ into `out`. Subtracting m first loses no digit of small differences between large logits."""
    torch.sub(logits, logits.amax(-1, keepdim=True).to(out.dtype), out=out)
    return out if temperature == 1 else out.div_(temperature)


def _project(hidden: Tensor, weight: Tensor, bias: Tensor | None, block: Tensor) -> Tensor:
    logits = block[: len(hidden)]
    torch.mm(hidden, weight.T, out=logits)
    return logits if bias is None else logits.add_(bias)


def _projection_buffer(hidden: Tensor, weight: Tensor) -> Tensor:
    rows = _rows_per_block(weight.T, _PROJECTED_ELEMENTS, fewest=_FEWEST_ROWS)
    return hidden.new_empty(min(rows, len(hidden)), len(weight))


def _rows_per_block(matrix: Tensor, elements: int, fewest: int) -> int:
    budget = elements if matrix.device.type == "cpu" else elements * _ACCELERATOR_FACTOR
    return max(fewest, budget // matrix.shape[-1])


def _blocks(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, max(size, 1))]


def _scratch(logits: Tensor, rows: int) -> Tensor:
    return logits.new_empty(min(rows, len(logits)), logits.shape[-1], dtype=_wide(logits.dtype))


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


def _allocate(reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and normalisers."""
    first, second, third = (reference.new_empty(len(reference), dtype=_wide(reference.dtype)) for _ in range(3))
    return first, second, third


def _cast(given: tuple[Tensor, Tensor, Tensor | None], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    hidden, weight, bias = given
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


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
