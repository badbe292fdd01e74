"""KL-Cov: the tokens that would cost most entropy are held back by a penalty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Objective, check_range, objective
from testbed.objectives._covariance import largest, ranked, token_covariance


@objective("kl_cov")
@dataclass(frozen=True, kw_only=True)
class KLCov(Objective):
    """The ratio objective, with a penalty on the move of the few tokens that covary most with the advantage.

        Cov_t = (log p_t - mean log p)(A_t - mean A),   means over the N response tokens
        I = the ⌊kN⌋ tokens of largest Cov
        ℓ = -rA + β·|z| on I, -rA elsewhere

        dℓ/dlog p = -rA + β·sign(z) on I, -rA elsewhere

    Of equal covariances a hash of the token's numbers decides. The choice needs the whole step: micro-batches would
    choose others.

    Reference: Cui et al., The entropy mechanism of reinforcement learning, arXiv 2505.22617v1, KL-Cov.
    Departures: 1. the penalty is |z| for the sampled token, as in the paper's pseudo-code, where its text has the
        KL of the two distributions. 2. verl penalises at least one token even where kN < 1, and its k is 2e-4, the
        paper's value for 32B.
    Gradient: as above; none through the choice, the old policy or the advantages. At z = 0 the penalty has none.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-1.0, -3.0]])
        >>> batch = TokenBatch(
        ...     log_probs=new,
        ...     old_log_probs=torch.tensor([[-1.5, -3.0]]),
        ...     advantages=torch.tensor([[0.0, -1.0]]),
        ...     mask=torch.ones(1, 2).bool(),
        ... )
        >>> KLCov(fraction=1.0)(batch).token_loss.tolist()  # |z| = 0.5 for the first, 0 for the second
        [[0.5, 1.0]]
    """

    needs_whole_batch = True
    acts_without_advantage = "the penalty on |z| does not carry A"

    fraction: Hyper = 2e-3
    """k in [0, 1]: this share of the response tokens is penalised."""
    penalty: Hyper = 1.0
    """β ≥ 0: weight of the penalty."""

    def check(self) -> None:
        check_range(self.name, "fraction", self.fraction, 0, 1)
        check_range(self.name, "penalty", self.penalty, 0, float("inf"), open_high=True)

    def selected(self, batch: TokenBatch) -> Tensor:
        """I, the tokens with a penalty, bool `(..., B, T)`."""
        return largest(ranked(token_covariance(batch), batch), batch.mask, self.fraction, batch)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {
            "cov/mean": token_average(token_covariance(batch), batch),
            "cov/selected_fraction": token_average(self.selected(batch), batch),
        }

    def token_loss(self, batch: TokenBatch) -> Tensor:
        penalty = torch.where(self.selected(batch), self.penalty * batch.log_ratio.abs(), 0)
        return -batch.ratio * batch.advantages + penalty
