"""How token losses become one number: five named means, each with its denominator in the open.

Every reduction takes the token loss `(..., B, T)`, zero where masked, and its batch, and returns `(...,)`. N is the
number of response tokens, B the number of non-empty responses, both taken from the whole optimiser step where the
batch carries `token_count` and `sequence_count`, so that a step split into micro-batches sums to the unsplit one.

Papers write their means per group of responses; engines take them over a micro-batch. Only global counts make the
result independent of how the step was split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import BatchError, ConfigError
from testbed.registry import Registry

__all__ = ["Accumulation", "Reduction", "reduction_names", "reductions", "token_weights"]

Accumulation = Literal["global", "mean", "sum"]
"""How micro-batches become a step: each is given the step's counts, or divides by its own and the results are averaged
or added up."""

Reduction = Callable[[Tensor, TokenBatch, float | Tensor], Tensor]

reductions: Registry[Reduction] = Registry("reduction")


def reduction_names() -> list[str]:
    """Every registered reduction, sorted.

    >>> reduction_names()[:2]
    ['seq_mean_token_mean', 'seq_mean_token_sum']
    """
    return reductions.names()


@reductions.register("token_mean")
def token_mean(token_loss: Tensor, batch: TokenBatch, max_length: float | Tensor) -> Tensor:
    """(1/N) Σ_i Σ_t ℓ: every token weighs the same, so a long response weighs more. Used by DAPO, CISPO, ERC."""
    return token_loss.sum((-2, -1)) / batch.total_tokens()


@reductions.register("seq_mean_token_mean")
def seq_mean_token_mean(token_loss: Tensor, batch: TokenBatch, max_length: float | Tensor) -> Tensor:
    """(1/B) Σ_i (1/n_i) Σ_t ℓ: every response weighs the same. Used by GRPO, GSPO, SAPO."""
    return batch.sequence_mean(token_loss).sum((-2, -1)) / batch.total_sequences()


@reductions.register("seq_mean_token_sum")
def seq_mean_token_sum(token_loss: Tensor, batch: TokenBatch, max_length: float | Tensor) -> Tensor:
    """(1/B) Σ_i Σ_t ℓ: a response weighs as its length. Used by BAPO, LUSPO, TOPR."""
    return token_loss.sum((-2, -1)) / batch.total_sequences()


@reductions.register("seq_mean_token_sum_norm")
def seq_mean_token_sum_norm(token_loss: Tensor, batch: TokenBatch, max_length: float | Tensor) -> Tensor:
    """(1/(B·L)) Σ_i Σ_t ℓ with a constant L. Used by Dr.GRPO.

    L is `max_length`. An objective without one of its own passes the padded width of the batch, which is what verl
    does and which makes the loss depend on the collator; TRL divides by the maximum completion length.
    """
    return token_loss.sum((-2, -1)) / (batch.total_sequences() * max_length)


@reductions.register("seq_sum_token_mean")
def seq_sum_token_mean(token_loss: Tensor, batch: TokenBatch, max_length: float | Tensor) -> Tensor:
    """Σ_i (1/n_i) Σ_t ℓ, without a division by B. DCPO's "only token mean"; B times `seq_mean_token_mean`."""
    return batch.sequence_mean(token_loss).sum((-2, -1))


def token_weights(
    mask: Tensor,
    reduction: str,
    *,
    max_length: float | None = None,
    parts: Sequence[int] | None = None,
    accumulation: Accumulation = "global",
) -> Tensor:
    """What a token's loss is multiplied with on its way into the loss of a step, in closed form.

        token_mean 1/N   seq_mean_token_mean 1/(B·n_i)   seq_mean_token_sum 1/B
        seq_mean_token_sum_norm 1/(B·L)   seq_sum_token_mean 1/n_i

    With micro-batches N and B are those of the step (`global`), or of the token's own part, and K parts are averaged
    (`mean`, another factor 1/K: what gradient accumulation and data parallelism do unless told otherwise) or added up
    (`sum`). Under `mean` a token of a part with few tokens weighs more under `token_mean`, and one of a part with few
    non-empty responses under the means over responses. L is `max_length` or the width of the mask.

    Args:
        mask: bool `(..., B, T)`, True on response tokens.
        reduction: a registered name.
        max_length: L of `seq_mean_token_sum_norm`.
        parts: responses of each micro-batch, in order, B in all; `None`: one.
        accumulation: see `Accumulation`.

    Returns:
        float64 `(..., B, T)`, 0 where masked.

    Raises:
        UnknownNameError: no such reduction.
        ConfigError: the accumulation is none of the three, or a part has no response.
        BatchError: the mask is not boolean, or the parts have not as many responses as the mask.

    Example:
        Two responses of 3 and 1 tokens. Each alone in a micro-batch, and averaged: the single token weighs three times
        as much as one of the others.

        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> token_weights(mask, "token_mean")[:, 0].tolist()
        [0.25, 0.25]
        >>> token_weights(mask, "token_mean", parts=[1, 1], accumulation="mean")[:, 0].tolist()
        [0.16666666666666666, 0.5]
    """
    reductions[reduction]
    if mask.dtype != torch.bool or mask.dim() < 2:
        raise BatchError(f"mask is {mask.dtype} {tuple(mask.shape)}; expected bool (..., B, T)")
    if accumulation not in get_args(Accumulation):
        raise ConfigError(f"accumulation is {accumulation!r}; expected one of {', '.join(get_args(Accumulation))}")
    sizes = [mask.shape[-2]] if parts is None else list(parts)
    if min(sizes, default=0) < 1:
        raise ConfigError(f"parts is {sizes}; expected at least one response in each")
    if sum(sizes) != mask.shape[-2]:
        raise BatchError(f"parts {sizes} are {sum(sizes)} responses; the mask has {mask.shape[-2]}")
    if accumulation == "global":
        sizes = [mask.shape[-2]]
    width = float(mask.shape[-1]) if max_length is None else max_length
    weights = torch.cat([_weights(part, reduction, width) for part in torch.split(mask, sizes, dim=-2)], dim=-2)
    return weights / len(sizes) if accumulation == "mean" else weights


def _weights(mask: Tensor, reduction: str, width: float) -> Tensor:
    tokens = mask.double()
    lengths = tokens.sum(-1, keepdim=True)
    # A part without tokens has no weights; its divisors are never 0.
    of_tokens = tokens.sum((-2, -1), keepdim=True).clamp(min=1)
    of_responses = (lengths > 0).sum(-2, keepdim=True).clamp(min=1)
    divisors = {
        "token_mean": of_tokens,
        "seq_mean_token_mean": of_responses * lengths.clamp(min=1),
        "seq_mean_token_sum": of_responses,
        "seq_mean_token_sum_norm": of_responses * width,
        "seq_sum_token_mean": lengths.clamp(min=1),
    }
    if reduction not in divisors:
        raise ConfigError(
            f"the weights of {reduction} are not known in closed form; Objective.reduction_weights has them"
        )
    return tokens / divisors[reduction]
