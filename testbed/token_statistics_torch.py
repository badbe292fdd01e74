"""What `testbed.token_statistics` does in plain PyTorch: matrix products and elementwise passes, a tile at a time.

From hidden states, the logits exist a tile at a time, some rows by some columns of the vocabulary, small enough to stay
in a processor's cache through all passes over it. The forward pass folds every tile into three running numbers per
token,

    m = max z,    S = Σ e^((z - m)/τ),    W = Σ ((z - m)/τ)·e^((z - m)/τ),

from which log p = (z_token - m)/τ - log S and H = log S - W/S; a new maximum rescales S and W. Where κ is
asked for, two more are folded, with e = e^((z - m)/τ):

    Q = Σ e²,    V = Σ e²·(z - m)/τ,    κ = (V - (W/S)·Q) / S².

The backward pass makes the tile again and turns it into ∂L/∂z. It goes through the vocabulary on the outside and the
tokens on the inside, so that each row of the weight's gradient is finished before the next is begun and is summed while
it is in the cache.

On a processor the four matrix products, and packing their factors, take three quarters of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["gradients_from_hidden", "read", "read_from_hidden", "write_gradient"]

_TILE_ELEMENTS = 2**19
"""Logits worked on at a time: enough for the work to outweigh the calls, few enough for all passes to find them in a
third-level cache, with two buffers beside them 6 MiB of float32."""
_TILE_COLUMNS = 2**10
"""Of a tile made from hidden states, whose 512 rows and more then let matrix products run at full speed."""
_ACCELERATOR_FACTOR = 16
"""How much larger a tile is on a device that hides latency by size."""
_PACKED_PRODUCT = 2**25
"""Multiplications from which a product is worth packing its factors for."""
_LOWEST = -1e30
"""Stands for the largest of no logits; finite, because infinity minus infinity is not a number."""
_FLOOR = -1e4
"""Stands for log 0: its exponential is 0 in every dtype, and 0 times it is 0 where 0 times -inf would be NaN."""

Slopes = tuple[Tensor | None, Tensor | None]
"""∂L/∂log p and ∂L/∂H of every row, `(N,)`; `None` where the loss does not read the one or the other."""
Saved = tuple[Tensor, Tensor, Tensor, Tensor]
"""log p of the token, H, m and log S of every row, `(N,)`, in float32 at least."""


def read(
    logits: Tensor, tokens: Tensor, temperature: float, with_kappas: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
    """Log p of the token, H and log S of every row of logits `(N, V)`, and κ if wanted.

    The maximum is found again faster than kept.
    """
    running = _Running(tokens, temperature, _wide(logits.dtype), with_kappas)
    rows = _rows(logits, logits.shape[-1])
    buffers = _buffers(logits, rows * logits.shape[-1])
    for block in _spans(len(logits), rows):
        running.fold(logits[block], block, 0, buffers)
    log_probs, entropies, _, log_sums = running.saved()
    return (log_probs, entropies, log_sums), running.kappas()


def write_gradient(
    logits: Tensor, tokens: Tensor, temperature: float, known: Sequence[Tensor], slopes: Slopes, out: Tensor
) -> None:
    """Write ∂L/∂z `(N, V)` into `out`, which may be `logits`; H and log S are known."""
    entropies, log_sums = known
    rows = _rows(logits, logits.shape[-1])
    buffers = _buffers(logits, rows * logits.shape[-1])
    for block in _spans(len(logits), rows):
        maxima = logits[block].amax(-1).to(log_sums.dtype)
        here = entropies[block], maxima, log_sums[block]
        out[block] = _gradient(logits[block], tokens[block], temperature, here, _part(slopes, block), buffers)


def read_from_hidden(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    temperature: float,
    dtype: torch.dtype,
    with_kappas: bool,
) -> tuple[Saved, Tensor | None]:
    """Log p of the token, H, m and log S of every row of h·Wᵀ + b, a product taken in `dtype`; and κ if wanted."""
    states = hidden.to(dtype)
    running = _Running(tokens, temperature, _wide(dtype), with_kappas)
    rows, columns = _tile(states, weight)
    buffers = _buffers(states, rows * columns)
    for part in _spans(len(weight), columns):
        head = _head(weight, bias, part, dtype)
        for block in _spans(len(states), rows):
            running.fold(_project(states[block], *head), block, part.start, buffers)
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
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """∂L/∂h, ∂L/∂W and ∂L/∂b, those that are wanted; H, m and log S are known.

    Sums of several products have more digits than half precision and are rounded once, at the end.
    """
    states, wide = hidden.to(dtype), _wide(dtype)
    for_hidden = torch.zeros_like(states, dtype=wide) if wanted[0] else None
    for_weight = torch.empty_like(weight) if wanted[1] else None
    for_bias = torch.empty_like(bias) if bias is not None and wanted[2] else None
    rows, columns = _tile(states, weight)
    buffers = _buffers(states, rows * columns)
    for part in _spans(len(weight), columns):
        head = _head(weight, bias, part, dtype)
        weight_sum = torch.zeros_like(head[0], dtype=wide)
        bias_sum = weight_sum.new_zeros(len(weight_sum))
        for block in _spans(len(states), rows):
            logits = _project(states[block], *head)
            here = [value[block] for value in known]
            total = _gradient(logits, tokens[block] - part.start, temperature, here, _part(slopes, block), buffers)
            gradient = total.to(dtype)
            if for_hidden is not None:
                for_hidden[block] += _product(gradient, head[0].T)
            if for_weight is not None:
                weight_sum += _product(gradient.T, states[block].T)
            if for_bias is not None:
                bias_sum += total.sum(0)
        if for_weight is not None:
            for_weight[part] = weight_sum
        if for_bias is not None:
            for_bias[part] = bias_sum
    return None if for_hidden is None else for_hidden.to(hidden.dtype), for_weight, for_bias


class _Running:
    """m, S, W and the token's logit of every row, over the tiles seen so far; Q and V where κ is wanted."""

    def __init__(self, tokens: Tensor, temperature: float, dtype: torch.dtype, with_kappas: bool) -> None:
        self.tokens, self.temperature, self.with_kappas = tokens, temperature, with_kappas
        self.maxima, self.sums, self.weighted, self.chosen = (
            torch.full(tokens.shape, value, dtype=dtype, device=tokens.device) for value in (_LOWEST, 0.0, 0.0, 0.0)
        )
        self.squares, self.weighted_squares = self.sums.new_zeros(2, len(tokens) if with_kappas else 0)

    def fold(self, tile: Tensor, rows: slice, first_column: int, buffers: Tensor) -> None:
        """Take in a tile of logits of these rows, its column 0 the given one."""
        before, sums, weighted, chosen = (value[rows] for value in (self.maxima, self.sums, self.weighted, self.chosen))
        place, inside = _inside(self.tokens[rows] - first_column, tile.shape[-1])
        chosen.copy_(torch.where(inside, tile.gather(-1, place).squeeze(-1), chosen))
        maxima = torch.maximum(before, tile.amax(-1))
        z, e = _views(buffers, tile.shape)
        _shift(tile, maxima, self.temperature, out=z).clamp_(min=_FLOOR)
        torch.exp(z, out=e)
        # The old sums, seen from the new maximum.
        fall = ((before - maxima) / self.temperature).clamp_(min=_FLOOR)
        shrink = fall.exp()
        weighted.addcmul_(sums, fall).mul_(shrink)
        sums.mul_(shrink).add_(e.sum(-1))
        weighted.add_(z.mul_(e).sum(-1))
        if self.with_kappas:
            squares, weighted_squares = self.squares[rows], self.weighted_squares[rows]
            shrink.square_()
            weighted_squares.addcmul_(squares, fall).mul_(shrink).add_(z.mul_(e).sum(-1))
            squares.mul_(shrink).add_(e.square_().sum(-1))
        before.copy_(maxima)

    def saved(self) -> Saved:
        log_sums = self.sums.log()
        log_probs = (self.chosen - self.maxima) / self.temperature - log_sums
        return log_probs, log_sums - self.weighted / self.sums, self.maxima, log_sums

    def kappas(self) -> Tensor | None:
        if not self.with_kappas:
            return None
        kappas: Tensor = (self.weighted_squares - self.weighted / self.sums * self.squares) / self.sums.square()
        return kappas


def _gradient(
    logits: Tensor, places: Tensor, temperature: float, known: Sequence[Tensor], slopes: Slopes, buffers: Tensor
) -> Tensor:
    """∂L/∂z of a tile, within the buffers; a token's place is its column, outside the tile if that does not have it."""
    entropies, maxima, log_sums = known
    g, g_entropy = slopes
    log_p, p = _views(buffers, logits.shape)
    _shift(logits, maxima, temperature, out=log_p).sub_(log_sums.unsqueeze(-1))
    torch.exp(log_p, out=p)
    slope = torch.zeros_like(log_sums) if g is None else g.to(p.dtype) / temperature
    if g_entropy is None:
        p *= -slope.unsqueeze(-1)
    else:
        of_entropy = g_entropy.to(p.dtype) / temperature
        offset = torch.addcmul(slope, of_entropy, entropies)
        log_p.clamp_(min=_FLOOR).mul_(-of_entropy.unsqueeze(-1)).sub_(offset.unsqueeze(-1))
        p *= log_p
    place, inside = _inside(places, logits.shape[-1])
    return p.scatter_add_(-1, place, torch.where(inside, slope, 0).unsqueeze(-1))


def _shift(logits: Tensor, maxima: Tensor, temperature: float, out: Tensor) -> Tensor:
    """(z - m)/τ into `out`. Subtracting m first loses no digit of small differences between large logits."""
    torch.sub(logits, maxima.unsqueeze(-1), out=out)
    return out if temperature == 1 else out.div_(temperature)


def _inside(places: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """An index `(n, 1)` that a tile of so many columns has, and whether it is the one that was meant, `(n,)`."""
    nearest = places.clamp(0, columns - 1)
    return nearest.unsqueeze(-1), nearest == places


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Left times right transposed.

    PyTorch multiplies plain matrices in single precision by MKL, which on an AMD processor with AVX-512 reaches half
    the speed of oneDNN, the other library that it comes with.
    """
    if left.dtype == torch.float32 and left.numel() * len(right) >= _PACKED_PRODUCT and _has_onednn(left.device):
        return functional.linear(left.to_mkldnn(), right.contiguous()).to_dense()
    return left @ right.T


def _has_onednn(device: torch.device) -> bool:
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _project(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = _product(states, weight)
    return logits if bias is None else logits.add_(bias)


def _head(weight: Tensor, bias: Tensor | None, columns: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight[columns].to(dtype), None if bias is None else bias[columns].to(dtype)


def _part(slopes: Slopes, rows: slice) -> Slopes:
    g, g_entropy = (None if value is None else value[rows] for value in slopes)
    return g, g_entropy


def _tile(states: Tensor, weight: Tensor) -> tuple[int, int]:
    """Rows and columns of the largest tile."""
    columns = min(len(weight), _TILE_COLUMNS)
    return _rows(states, columns), columns


def _rows(like: Tensor, columns: int) -> int:
    """Rows of a tile of so many columns."""
    elements = _TILE_ELEMENTS if like.device.type == "cpu" else _TILE_ELEMENTS * _ACCELERATOR_FACTOR
    return max(1, min(len(like), elements // columns))


def _buffers(like: Tensor, elements: int) -> Tensor:
    """Memory for two tiles, in one piece.

    The C library gives memory back to the system, for a page fault on every page of the next tile, when more lies idle
    than twice the largest piece it has handed out. Two tiles in one piece let the others come and go.
    """
    return like.new_empty(2, elements, dtype=_wide(like.dtype))


def _views(buffers: Tensor, shape: torch.Size) -> list[Tensor]:
    return [buffer[: shape.numel()].view(shape) for buffer in buffers]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _spans(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, max(size, 1))]
