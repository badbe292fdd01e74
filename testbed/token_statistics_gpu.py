"""What `testbed.token_statistics` does on a CUDA device: matrix products with one fused pass over each tile of logits.

From hidden states, the logits exist a tile at a time, some rows by some columns of the vocabulary. The forward pass
folds every tile into three running numbers per token,

    m = max z,    S = Σ e^((z - m)/τ),    W = Σ ((z - m)/τ)·e^((z - m)/τ),

from which log p = (z_token - m)/τ - log S and H = log S - W/S; a new maximum rescales S and W. The backward pass makes
the tile again, overwrites it with ∂L/∂z and multiplies twice. It goes through the vocabulary on the outside and the
tokens on the inside, so that each row of the weight's gradient is finished before the next is begun: no second copy of
it, in single precision, is ever held.

Triton comes with PyTorch's CUDA builds for Linux; where it is missing, `usable` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

__all__ = ["gradients_from_hidden", "read", "read_from_hidden", "usable", "write_gradient"]

_TILE_ELEMENTS = 2**26
"""Logits held at a time: 128 MiB in half precision."""
_MOST_ROWS = 2**13
"""Rows of a tile: enough for the matrix products to take the time, not the passes over the weight."""
_READ_BLOCK, _READ_WARPS = 4096, 8
_WRITE_BLOCK, _WRITE_WARPS = 2048, 4
_LOWEST = -1e30
"""Stands for the largest of no logits; finite, because infinity minus infinity is not a number."""
_FLOOR = -1e4
"""Stands for log 0: its exponential is 0, and 0 times it is 0 where 0 times -inf would be NaN."""
_HALF = (torch.float16, torch.bfloat16)
_PRODUCTS_WIDEN = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
"""Whether a product of half-precision matrices can be had in single precision."""


Slopes = tuple[Tensor | None, Tensor | None]
"""∂L/∂log p and ∂L/∂H of every row, `(N,)`; `None` where the loss does not read the one or the other."""
Saved = tuple[Tensor, Tensor, Tensor, Tensor]
"""log p of the token, H, m and log S of every row, float32 `(N,)`."""


def usable(values: Tensor) -> bool:
    """Whether these kernels run on the device and in the dtype of `values`."""
    return triton is not None and values.device.type == "cuda" and values.dtype in (*_HALF, torch.float32)


def read(logits: Tensor, tokens: Tensor, temperature: float) -> Saved:
    """One pass over logits `(N, V)` whose rows are contiguous."""
    running = _Running(tokens)
    running.fold(logits, slice(0, len(logits)), 0, temperature)
    return running.saved(temperature)


def write_gradient(
    logits: Tensor,
    tokens: Tensor,
    temperature: float,
    known: Sequence[Tensor],
    slopes: Slopes,
    out: Tensor,
    first: int = 0,
) -> None:
    """Write ∂L/∂z `(N, C)` into `out`, which may be `logits`; H, m and log S are known.

    Column 0 is the vocabulary's number `first`.
    """
    rows, columns = logits.shape
    if not rows:
        return
    entropies, maxima, log_sums = known
    g, g_entropy = (None if value is None else value.float().contiguous() for value in slopes)
    with torch.cuda.device(logits.device):
        _write_kernel[rows, triton.cdiv(columns, _WRITE_BLOCK)](
            logits,
            logits.stride(0),
            out,
            out.stride(0),
            tokens,
            maxima,
            log_sums,
            entropies,
            entropies if g is None else g,
            entropies if g_entropy is None else g_entropy,
            first,
            columns,
            1 / temperature,
            HAS_G=g is not None,
            HAS_G_ENTROPY=g_entropy is not None,
            FLOOR=_FLOOR,
            BLOCK=_WRITE_BLOCK,
            num_warps=_WRITE_WARPS,
        )


def read_from_hidden(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float, dtype: torch.dtype
) -> Saved:
    """`read` of h·Wᵀ + b, taken in `dtype`, a tile at a time."""
    running = _Running(tokens)
    make_tile = _Tiles(hidden, weight, bias, dtype)
    for columns in _spans(len(weight), make_tile.columns):
        part = weight[columns].to(dtype)
        for rows in _spans(len(hidden), make_tile.rows):
            running.fold(make_tile(hidden[rows].to(dtype), part, columns), rows, columns.start, temperature)
    return running.saved(temperature)


def gradients_from_hidden(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    temperature: float,
    dtype: torch.dtype,
    known: Sequence[Tensor],
    slopes: Slopes,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """∂L/∂h, ∂L/∂W and ∂L/∂b, those that are wanted; sums run in float32 and are rounded once, at the end."""
    make_tile = _Tiles(hidden, weight, bias, dtype)
    for_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wanted[0] else None
    for_weight = torch.empty_like(weight) if wanted[1] else None
    for_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
    row_spans = list(_spans(len(hidden), make_tile.rows))
    if for_weight is not None and not row_spans:
        for_weight.zero_()
    for columns in _spans(len(weight), make_tile.columns):
        part = weight[columns].to(dtype)
        # A product is summed in float32 inside; only sums of several products need a place to be held in it.
        direct = for_weight is not None and (len(row_spans) == 1 or for_weight.dtype == torch.float32)
        total = for_weight[columns] if direct and for_weight is not None else None
        for rows in row_spans:
            states = hidden[rows].to(dtype)
            tile = make_tile(states, part, columns)
            here = [value[rows] for value in known]
            g, g_entropy = (None if value is None else value[rows] for value in slopes)
            write_gradient(tile, tokens[rows], temperature, here, (g, g_entropy), tile, columns.start)
            if for_hidden is not None:
                _add_product(for_hidden[rows], tile, part)
            if for_bias is not None:
                for_bias[columns] += tile.sum(0, dtype=torch.float32)
            if for_weight is None:
                continue
            if total is None:
                total = torch.empty(part.shape, dtype=torch.float32, device=part.device)
            if rows.start == 0:
                _set_product(total, tile.T, states)
            else:
                _add_product(total, tile.T, states)
        if for_weight is not None and total is not None and not direct:
            for_weight[columns] = total
    return (
        None if for_hidden is None else for_hidden.to(hidden.dtype),
        for_weight,
        None if for_bias is None or bias is None else for_bias.to(bias.dtype),
    )


class _Running:
    """m, S, W and the token's logit of every row, over the tiles seen so far."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.maxima = torch.full(tokens.shape, _LOWEST, dtype=torch.float32, device=tokens.device)
        self.sums, self.weighted, self.chosen = (torch.zeros_like(self.maxima) for _ in range(3))

    def fold(self, tile: Tensor, rows: slice, first: int, temperature: float) -> None:
        """Take in columns `first` and following of some rows."""
        if not len(tile):
            return
        with torch.cuda.device(tile.device):
            _read_kernel[(len(tile),)](
                tile,
                tile.stride(0),
                self.tokens[rows],
                self.maxima[rows],
                self.sums[rows],
                self.weighted[rows],
                self.chosen[rows],
                first,
                tile.shape[1],
                1 / temperature,
                FLOOR=_FLOOR,
                BLOCK=_READ_BLOCK,
                num_warps=_READ_WARPS,
            )

    def saved(self, temperature: float) -> Saved:
        log_sums = self.sums.log()
        log_probs = (self.chosen - self.maxima) / temperature - log_sums
        return log_probs, log_sums - self.weighted / self.sums, self.maxima, log_sums


class _Tiles:
    """Makes tiles of logits, each in the memory of the one before."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.rows = max(1, min(len(hidden), _MOST_ROWS))
        self.columns = max(1, min(len(weight), _TILE_ELEMENTS // self.rows))
        self._memory = torch.empty(self.rows * self.columns, dtype=dtype, device=hidden.device)
        self._bias = None if bias is None else bias.to(dtype)

    def __call__(self, hidden: Tensor, weight: Tensor, columns: slice) -> Tensor:
        tile = self._memory[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        torch.mm(hidden, weight.T, out=tile)
        return tile if self._bias is None else tile.add_(self._bias[columns])


def _spans(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _set_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total = left @ right`."""
    if total.dtype == left.dtype:
        torch.mm(left, right, out=total)
    elif _PRODUCTS_WIDEN and total.is_cuda:
        torch.mm(left, right, out_dtype=total.dtype, out=total)
    else:
        torch.mm(left.to(total.dtype), right.to(total.dtype), out=total)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, the product not rounded before it is added."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif _PRODUCTS_WIDEN and total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


def _kernel(function: Callable[..., None]) -> Any:
    return function if triton is None else triton.jit(function)


@_kernel
def _read_kernel(  # type: ignore[no-untyped-def]
    logits,
    row_stride,
    tokens,
    maxima,
    sums,
    weighted,
    chosen,
    first,
    columns,
    scale,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per row of a tile: its part of m, S, W, merged with what is known."""
    row = tl.program_id(0).to(tl.int64)
    start_of_row = logits + row * row_stride
    place = tl.load(tokens + row) - first
    if (place >= 0) & (place < columns):
        tl.store(chosen + row, tl.load(start_of_row + place).to(tl.float32))
    m = tl.load(maxima + row)
    total = tl.load(sums + row)
    mean = tl.load(weighted + row)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        z = tl.load(start_of_row + offsets, mask=offsets < columns, other=-float("inf")).to(tl.float32)
        top = tl.maximum(m, tl.max(z, axis=0))
        # The old sums, seen from the new maximum.
        fall = tl.maximum((m - top) * scale, FLOOR)
        shrink = tl.exp(fall)
        mean = (mean + fall * total) * shrink
        total *= shrink
        m = top
        # A comparison, since a maximum would put the floor in the place of NaN.
        shifted = (z - m) * scale
        shifted = tl.where(shifted < FLOOR, FLOOR, shifted)
        e = tl.exp(shifted)
        total += tl.sum(e, axis=0)
        mean += tl.sum(e * shifted, axis=0)
    tl.store(maxima + row, m)
    tl.store(sums + row, total)
    tl.store(weighted + row, mean)


@_kernel
def _write_kernel(  # type: ignore[no-untyped-def]
    logits,
    row_stride,
    out,
    out_stride,
    tokens,
    maxima,
    log_sums,
    entropies,
    g,
    g_entropy,
    first,
    columns,
    scale,
    HAS_G: tl.constexpr,
    HAS_G_ENTROPY: tl.constexpr,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per row and block of columns: (g·onehot - p·(g + g_H·(log p + H)))/τ in place of z."""
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < columns
    z = tl.load(logits + row * row_stride + offsets, mask=inside, other=0.0).to(tl.float32)
    log_p = (z - tl.load(maxima + row)) * scale - tl.load(log_sums + row)
    log_p = tl.where(log_p < FLOOR, FLOOR, log_p)
    p = tl.exp(log_p)
    slope = tl.zeros((BLOCK,), tl.float32)
    if HAS_G_ENTROPY:
        slope += tl.load(g_entropy + row) * (log_p + tl.load(entropies + row))
    if HAS_G:
        of_token = tl.load(g + row)
        slope += of_token
        gradient = tl.where(offsets + first == tl.load(tokens + row), of_token, 0.0) - p * slope
    else:
        gradient = -p * slope
    tl.store(out + row * out_stride + offsets, (gradient * scale).to(out.dtype.element_ty), mask=inside)
