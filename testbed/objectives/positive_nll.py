"""A maximum-likelihood term on good responses; wraps any objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, Objective, Wrapper, check_range, objective


@objective("positive_nll")
@dataclass(frozen=True, kw_only=True)
class PositiveNLL(Wrapper):
    """Any base objective plus α times the negative log-likelihood of the tokens with A > 0.

        L = L_base - α·(1/N⁺) Σ_{A>0} log p,   N⁺ the number of tokens with A > 0

        ℓ = ℓ_base - α·(N/N⁺)·1{A>0}·log p

    The second line is the first one written per token; they agree under the token mean. N⁺ is counted over the whole
    step: micro-batches would weight the term differently.

    Reference: Su et al., Klear-Reasoner, arXiv 2508.07629, the NLL term (α = 0.1); the released scripts of CE-GPPO and
        ERC add it too.
    Departures: the paper takes the responses that are fully correct. A batch does not say which are; with a binary
        reward and mixed groups they are those with A > 0.
    Gradient: that of the base minus α·N/N⁺ where A > 0.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> log_probs = torch.tensor([[-2.0], [-3.0]])
        >>> batch = TokenBatch(
        ...     log_probs=log_probs,
        ...     old_log_probs=log_probs,
        ...     advantages=torch.tensor([1.0, -1.0]),
        ...     mask=torch.ones(2, 1).bool(),
        ... )
        >>> PositiveNLL(coefficient=0.5)(batch).loss.item()  # the base gives (-1 + 1)/2; the term 0.5 · 2
        1.0
    """

    needs_whole_batch = True
    exact_on_policy = "the likelihood term adds its own gradient"

    base: Objective | str = "gppo"
    """The objective the term is added to: an object, a name or `name(key=value,…)`."""
    coefficient: Hyper = 0.1
    """α ≥ 0: weight of the term."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "coefficient", self.coefficient, 0, float("inf"), open_high=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        positive = batch.advantages > 0
        scale = batch.lengths.sum(-1) / positive.sum((-2, -1)).clamp(min=1)
        term = torch.where(positive, -batch.log_probs, 0) * scale[..., None, None]
        return self.wrapped.token_loss(batch) + self.coefficient * term
