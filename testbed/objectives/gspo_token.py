"""GSPO-token: the sequence ratio as a constant, the gradient token by token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.masking import MAX_LOG_RATIO
from testbed.objectives._base import clipped_surrogate, objective, straight_through
from testbed.objectives.gspo import GSPO


@objective("gspo_token")
@dataclass(frozen=True, kw_only=True)
class GSPOToken(GSPO):
    """GSPO whose sequence ratio is a constant, so that tokens of one response may have different advantages.

        s_it = sg[s_i]·p/sg[p],   ℓ_it = -min(s_it A_it, clip(s_it, 1-ε_low, 1+ε_high)·A_it)

        F = s_i, but 0 where A > 0, s_i > 1+ε_high;  where A < 0, s_i < 1-ε_low

    With one advantage per response the value, the clip decision and the gradient are GSPO's.

    Reference: Zheng et al., Group sequence policy optimization, arXiv 2507.18071v2, eq. 13 and 14.
    Departures: p/sg[p] is evaluated as exp(z - sg[z]); the mean of z is clamped to ±20, single tokens are not.
    Gradient: dℓ/dlog p = -F·A to the token itself; none through s_i, the old policy or the advantages, and none where
        the mean of z is beyond ±20.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[0.1, -0.1]], requires_grad=True)  # the log-ratios cancel: s = 1
        >>> batch = TokenBatch(
        ...     log_probs=new,
        ...     old_log_probs=torch.zeros(1, 2),
        ...     advantages=torch.tensor([[1.0, -2.0]]),
        ...     mask=torch.ones(1, 2).bool(),
        ... )
        >>> GSPOToken(reduction="seq_mean_token_sum")(batch).loss.backward()
        >>> new.grad.tolist()
        [[-1.0, 2.0]]
    """

    cuts_gradient = "the sequence ratio s_i"

    def token_loss(self, batch: TokenBatch) -> Tensor:
        log_ratio = batch.unclamped_log_ratio
        mean = batch.sequence_mean(log_ratio.detach())
        unit = straight_through(log_ratio.where(mean.abs() <= MAX_LOG_RATIO, log_ratio.detach()))
        ratio = self.sequence_ratio(batch).detach() * unit
        return clipped_surrogate(ratio, batch.advantages, 1 - self.clip_low, 1 + self.clip_high)
