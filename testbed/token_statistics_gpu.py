"""What `testbed.token_statistics` does on a CUDA device: matrix products with one fused pass over each tile of logits.

From hidden states, the logits exist a tile at a time, some rows by some columns of the vocabulary. The forward pass
folds every tile into three running numbers per token,

    m = max z,    S = Σ e^((z - m)/τ),    W = Σ ((z - m)/τ)·e^((z - m)/τ),

from which log p = (z_token - m)/τ - log S and H = log S - W/S; a new maximum rescales S and W. Where κ is
asked for, two more are folded, with e = e^((z - m)/τ):

    Q = Σ e²,    V = Σ e²·(z - m)/τ,    κ = (V - (W/S)·Q) / S².

The backward pass makes the tile again, overwrites it with ∂L/∂z and multiplies twice. It goes through the vocabulary on
the outside and the tokens on the inside, so that each row of the weight's gradient is finished before the next is
begun: no second copy of it, in single precision, is ever held.

Triton comes with PyTorch's CUDA builds for Linux; where it is missing, `usable` says so.
"""

from __future__ import annotations

import math
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

_TILE_ELEMENTS = 3 * 2**25
"""Logits held at a time: 192 MiB in half precision, wide enough for matrix products at nearly full speed."""
_MOST_ROWS = 2**13
"""Rows of a tile: enough for the matrix products to take the time, not the passes over the weight."""
_ALIGNED = 256
_READ_GROUPS, _READ_WARPS = 256, 4
_GROUP = 8
"""Columns that one thread reads at once: 16 bytes in half precision."""
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


def read(logits: Tensor, tokens: Tensor, temperature: float, with_kappas: bool) -> tuple[Saved, Tensor | None]:
    """One pass over logits `(N, V)` whose rows are contiguous; a token outside the vocabulary has log p = NaN."""
    running = _Running(tokens, temperature, with_kappas)
    running.fold(logits, 0, 0)
    return running.saved(), running.kappas()


def write_gradient(
    logits: Tensor,
    tokens: Tensor,
    temperature: float,
    known: Sequence[Tensor],
    slopes: Slopes,
    out: Tensor,
    first_row: int = 0,
    first_column: int = 0,
) -> None:
    """Write ∂L/∂z `(n, C)` into `out`, which may be `logits`; H, m and log S are known.

    Row 0 and column 0 are the given numbers of all `(N,)` rows and of the vocabulary.
    """
    rows, columns = logits.shape
    if not rows:
        return
    entropies, maxima, log_sums = known
    g, g_entropy = _plain(slopes)
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
            first_row,
            first_column,
            columns,
            1 / temperature,
            HAS_G=g is not None,
            HAS_G_ENTROPY=g_entropy is not None,
            FLOOR=_FLOOR,
            BLOCK=_WRITE_BLOCK,
            num_warps=_WRITE_WARPS,
        )


def read_from_hidden(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    temperature: float,
    dtype: torch.dtype,
    with_kappas: bool,
) -> tuple[Saved, Tensor | None]:
    """`read` of h·Wᵀ + b, taken in `dtype`, a tile at a time."""
    running = _Running(tokens, temperature, with_kappas)
    states = hidden.to(dtype)
    memory = _TileMemory(states, weight)
    for columns in _spans(len(weight), memory.columns):
        for rows in _spans(len(states), memory.rows):
            tile = memory.tile(rows, columns)
            _fill(tile, states[rows], weight[columns], None if bias is None else bias[columns])
            running.fold(tile, rows.start, columns.start)
    return running.saved(), running.kappas()


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
    states, slopes = hidden.to(dtype), _plain(slopes)
    for_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wanted[0] else None
    for_weight = torch.zeros_like(weight) if wanted[1] else None
    for_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
    memory = _TileMemory(states, weight)
    # A product is summed in float32 inside; only the sum of several products needs a place to be held in it.
    direct = len(states) <= memory.rows or weight.dtype == torch.float32
    for columns in _spans(len(weight), memory.columns):
        part = weight[columns].to(dtype)
        total = None
        for rows in _spans(len(states), memory.rows):
            tile = memory.tile(rows, columns)
            _fill(tile, states[rows], part, None if bias is None else bias[columns])
            write_gradient(tile, tokens, temperature, known, slopes, tile, rows.start, columns.start)
            if for_hidden is not None:
                _add_product(for_hidden[rows], tile, part)
            if for_bias is not None:
                for_bias[columns] += tile.sum(0, dtype=torch.float32)
            if for_weight is None:
                continue
            if total is None:
                total = for_weight[columns] if direct else torch.empty_like(part, dtype=torch.float32)
                _set_product(total, tile.T, states[rows])
            else:
                _add_product(total, tile.T, states[rows])
        if for_weight is not None and total is not None and not direct:
            for_weight[columns] = total
    return (
        None if for_hidden is None else for_hidden.to(hidden.dtype),
        for_weight,
        None if for_bias is None or bias is None else for_bias.to(bias.dtype),
    )


class _Running:
    """m, S, W and the token's logit of every row, over the tiles seen so far; Q and V where κ is wanted."""

    def __init__(self, tokens: Tensor, temperature: float, with_kappas: bool) -> None:
        self.tokens, self.temperature, self.with_kappas = tokens, temperature, with_kappas
        self.numbers = [
            torch.full(tokens.shape, value, dtype=torch.float32, device=tokens.device)
            for value in (_LOWEST, 0.0, 0.0, torch.nan, *((0.0, 0.0) if with_kappas else ()))
        ]

    def fold(self, tile: Tensor, first_row: int, first_column: int) -> None:
        """Take in a tile; its row 0 and column 0 are the given ones."""
        if not len(tile):
            return
        with torch.cuda.device(tile.device):
            _read_kernel[(len(tile),)](
                tile,
                tile.stride(0),
                self.tokens,
                *self.numbers,
                # Nothing is read or written through these where κ is not wanted.
                *(() if self.with_kappas else self.numbers[:2]),
                first_row,
                first_column,
                tile.shape[1],
                1 / self.temperature,
                HAS_KAPPAS=self.with_kappas,
                LOWEST=_LOWEST,
                FLOOR=_FLOOR,
                GROUPS=_READ_GROUPS,
                GROUP=_GROUP,
                num_warps=_READ_WARPS,
            )

    def saved(self) -> Saved:
        maxima, sums, weighted, chosen = self.numbers[:4]
        log_sums = sums.log()
        return (chosen - maxima) / self.temperature - log_sums, log_sums - weighted / sums, maxima, log_sums

    def kappas(self) -> Tensor | None:
        if not self.with_kappas:
            return None
        _, sums, weighted, _, squares, weighted_squares = self.numbers
        return (weighted_squares - weighted / sums * squares) / sums.square()


class _TileMemory:
    """Memory for one tile of logits at a time."""

    def __init__(self, states: Tensor, weight: Tensor) -> None:
        self.rows = max(1, min(len(states), _MOST_ROWS))
        # Tiles of equal width, a multiple of what a matrix product works on at a time.
        tiles = max(1, math.ceil(len(weight) * self.rows / _TILE_ELEMENTS))
        self.columns = min(len(weight), _ALIGNED * math.ceil(len(weight) / tiles / _ALIGNED))
        self._memory = states.new_empty(self.rows * self.columns)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """Contiguous, its content whatever was there before."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        return self._memory[: shape[0] * shape[1]].view(shape)


def _fill(tile: Tensor, states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    torch.mm(states, weight.to(states.dtype).T, out=tile)
    if bias is not None:
        tile += bias.to(states.dtype)


def _plain(slopes: Slopes) -> Slopes:
    """As the kernel reads them."""
    g, g_entropy = (None if value is None else value.float().contiguous() for value in slopes)
    return g, g_entropy


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
    squares,
    weighted_squares,
    first_row,
    first,
    columns,
    scale,
    HAS_KAPPAS: tl.constexpr,
    LOWEST: tl.constexpr,
    FLOOR: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One program per row of a tile: its part of m, S, W and where wanted Q, V, merged with what is known.

    Every group of columns keeps numbers of its own; groups meet only after the last column.
    """
    start_of_row = logits + tl.program_id(0).to(tl.int64) * row_stride
    row = first_row + tl.program_id(0)
    place = tl.load(tokens + row) - first
    if (place >= 0) & (place < columns):
        tl.store(chosen + row, tl.load(start_of_row + place).to(tl.float32))
    inside = tl.arange(0, GROUPS)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    m = tl.full((GROUPS,), LOWEST, tl.float32)
    total = tl.zeros((GROUPS,), tl.float32)
    mean = tl.zeros((GROUPS,), tl.float32)
    square = tl.zeros((GROUPS,), tl.float32)
    square_mean = tl.zeros((GROUPS,), tl.float32)
    for start in range(0, columns, GROUPS * GROUP):
        offsets = start + inside
        z = tl.load(start_of_row + offsets, mask=offsets < columns, other=-float("inf")).to(tl.float32)
        top = tl.maximum(m, tl.max(z, axis=1))
        # The old sums, seen from the new maximum.
        fall = tl.maximum((m - top) * scale, FLOOR)
        shrink = tl.exp(fall)
        shifted = (z - top[:, None]) * scale
        e = tl.exp(shifted)
        mean = (mean + fall * total) * shrink + tl.sum(e * tl.maximum(shifted, FLOOR), axis=1)
        total = total * shrink + tl.sum(e, axis=1)
        if HAS_KAPPAS:
            of_squares = tl.sum(e * e * tl.maximum(shifted, FLOOR), axis=1)
            square_mean = (square_mean + fall * square) * shrink * shrink + of_squares
            square = square * shrink * shrink + tl.sum(e * e, axis=1)
        m = top
    known_m = tl.load(maxima + row)
    known_total = tl.load(sums + row)
    top = tl.maximum(known_m, tl.max(m, axis=0))
    fall = tl.maximum((m - top) * scale, FLOOR)
    known_fall = tl.maximum((known_m - top) * scale, FLOOR)
    shrink = tl.exp(fall)
    known_shrink = tl.exp(known_fall)
    known_mean = (tl.load(weighted + row) + known_fall * known_total) * known_shrink
    tl.store(maxima + row, top)
    tl.store(sums + row, tl.sum(total * shrink, axis=0) + known_total * known_shrink)
    tl.store(weighted + row, tl.sum((mean + fall * total) * shrink, axis=0) + known_mean)
    if HAS_KAPPAS:
        known_square = tl.load(squares + row)
        known_shrink *= known_shrink
        shrink *= shrink
        known_square_mean = (tl.load(weighted_squares + row) + known_fall * known_square) * known_shrink
        own_square_mean = tl.sum((square_mean + fall * square) * shrink, axis=0)
        tl.store(squares + row, tl.sum(square * shrink, axis=0) + known_square * known_shrink)
        tl.store(weighted_squares + row, own_square_mean + known_square_mean)


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
    first_row,
    first,
    columns,
    scale,
    HAS_G: tl.constexpr,
    HAS_G_ENTROPY: tl.constexpr,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per row and block of columns: (g·onehot - p·(g + g_H·(log p + H)))/τ in place of z."""
    place = tl.program_id(0).to(tl.int64)
    row = first_row + tl.program_id(0)
    offsets = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < columns
    z = tl.load(logits + place * row_stride + offsets, mask=inside, other=0.0).to(tl.float32)
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
    tl.store(out + place * out_stride + offsets, (gradient * scale).to(out.dtype.element_ty), mask=inside)
