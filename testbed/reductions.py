"""How token losses become one number: five named means, each with its denominator in the open.

Every reduction takes the token loss `(..., B, T)`, zero where masked, and its batch, and returns `(...,)`. N is the
number of response tokens, B the number of non-empty responses, both taken from the whole optimiser step where the
batch carries `token_count` and `sequence_count`, so that a step split into micro-batches sums to the unsplit one.

Papers write their means per group of responses; engines take them over a micro-batch. Only global counts make the
result independent of how the step was split.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.registry import Registry

__all__ = ["Reduction", "reduction_names", "reductions"]

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
