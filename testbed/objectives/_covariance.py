"""How Clip-Cov and KL-Cov choose their tokens: by each token's share of the covariance of log p and A."""

from __future__ import annotations

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, tensor_like

__all__ = ["draw", "largest", "ranked", "token_covariance"]


def token_covariance(batch: TokenBatch) -> Tensor:
    """(log p - mean log p)(A - mean A), `(..., B, T)`, a constant; means over the response tokens of the batch."""
    return _centred(batch.log_probs.detach(), batch) * _centred(batch.advantages, batch)


def largest(scores: Tensor, candidates: Tensor, fraction: Hyper, batch: TokenBatch) -> Tensor:
    """The ⌊fraction·N⌋ candidates of highest score, bool `(..., B, T)`; all of them if there are fewer.

    Args:
        scores: what is ranked, `(..., B, T)`, without ties.
        candidates: bool `(..., B, T)`: which tokens may be chosen.
        fraction: of the N response tokens of the batch.
        batch: the tokens.
    """
    share = tensor_like(fraction, scores.double())
    if share.dim() >= 2:
        share = share[..., 0, 0]
    # 1e-9 of a token: 0.1 of 30 tokens must be three although the product falls short in binary.
    count = (share * batch.mask.sum((-2, -1)) + 1e-9).floor()
    flat = scores.masked_fill(~candidates, -float("inf")).flatten(-2)
    most = min(int(count.max()), flat.shape[-1])
    best, where = flat.topk(most)
    taken = (torch.arange(most, device=flat.device) < count[..., None]) & (best > -float("inf"))
    chosen = torch.zeros(*taken.shape[:-1], flat.shape[-1], dtype=torch.bool, device=flat.device)
    return chosen.scatter(-1, where.expand_as(taken), taken).view(*taken.shape[:-1], *scores.shape[-2:])


def ranked(scores: Tensor, batch: TokenBatch) -> Tensor:
    """Each token's place in the order of `scores`, from 0 for the lowest, `(..., B, T)`; no two are equal.

    Equal scores stand in the order of their draw. Left to `topk`, a tie would depend on the order of the sequences and
    on how many tokens another replica asks for.
    """
    flat = scores.flatten(-2)
    by_draw = draw(batch).flatten(-2).argsort(dim=-1, stable=True)
    order = by_draw.gather(-1, flat.gather(-1, by_draw).argsort(dim=-1, stable=True))
    places = torch.arange(flat.shape[-1], dtype=torch.float64, device=flat.device).expand_as(flat)
    return torch.empty_like(places).scatter(-1, order, places).view_as(scores)


def draw(batch: TokenBatch) -> Tensor:
    """A number in [0, 1) for each token, `(..., B, T)`: a hash of the token's own log-probabilities and advantage.

    Uniform over tokens, and a function of the batch alone: the same step draws the same tokens, however it is padded or
    ordered and whatever else runs beside it. Equal tokens are counted, so that they draw different numbers.
    """
    code = torch.zeros_like(batch.mask, dtype=torch.int64)
    for values in (batch.old_log_probs, batch.log_probs.detach(), batch.advantages):
        # Adding 0 makes one of the two zeros; single precision makes the draw that of a float32 run.
        code = _mix(code ^ (values.float() + 0.0).view(torch.int32).long())
    return (_mix(code ^ _occurrence(code.flatten(-2)).view_as(code)).double() / 2**32).view_as(code)


def _centred(values: Tensor, batch: TokenBatch) -> Tensor:
    return values - token_average(values, batch)[..., None, None]


def _mix(code: Tensor) -> Tensor:
    """A bijection of 32-bit numbers in which every input bit moves about half of the output bits."""
    code = code & 0xFFFFFFFF
    for _ in range(2):
        code = ((code ^ (code >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return code ^ (code >> 16)


def _occurrence(codes: Tensor) -> Tensor:
    """For each entry of `(..., N)`, how many equal ones a stable sort puts before it."""
    ordered, order = codes.sort(dim=-1, stable=True)
    position = torch.arange(codes.shape[-1], device=codes.device).expand_as(codes)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(starts, position, 0).cummax(-1).values
    return torch.empty_like(codes).scatter(-1, order, position - first)
