"""GSPO: the ratio and its clip belong to the whole response."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.masking import clamp_log_ratio
from testbed.objectives._base import Hyper, Objective, check_range, clipped_surrogate, objective


@objective("gspo")
@dataclass(frozen=True, kw_only=True)
class GSPO(Objective):
    """Pushes a response by its length-normalised ratio and drops the whole response once that is clipped.

        s_i = exp((1/n_i) Σ_t z_it),   ℓ_it = -min(s_i A_i, clip(s_i, 1-ε_low, 1+ε_high)·A_i) for every token t

        d(Σ_t ℓ_it)/dz_it = -s_i A_i, or 0 for all tokens of the response when it is clipped

    With the default reduction a response contributes s_i A_i / n_i per token.

    Reference: Zheng et al., Group sequence policy optimization, arXiv 2507.18071v2, eq. 5 and 7.
    Departures: the mean of z is clamped to ±20, single tokens are not. Under `token_mean`, the default of verl and TRL,
        long responses weigh more than in the paper.
    Gradient: through the mean of z to every token of the response; none to the old policy or the advantages, and none
        where the mean is beyond ±20.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.zeros(1, 2)
        >>> batch = TokenBatch(
        ...     log_probs=torch.tensor([[0.1, -0.1]]),
        ...     old_log_probs=old,
        ...     advantages=torch.ones(1),
        ...     mask=old.bool() | True,
        ... )
        >>> GSPO()(batch).loss.item()  # the two log-ratios cancel: s = 1
        -1.0
    """

    clip_low: Hyper = 3e-4
    """ε_low ≥ 0: the sequence ratio may fall to 1 - ε_low."""
    clip_high: Hyper = 4e-4
    """ε_high ≥ 0: the sequence ratio may rise to 1 + ε_high."""
    reduction: str = "seq_mean_token_mean"

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"))
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))

    def sequence_ratio(self, batch: TokenBatch) -> Tensor:
        """s_i, `(..., B, 1)`."""
        return clamp_log_ratio(batch.sequence_mean(batch.unclamped_log_ratio)).exp()

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(1 - self.clip_low, 1 + self.clip_high, ratio=self.sequence_ratio(batch))

    def token_loss(self, batch: TokenBatch) -> Tensor:
        ratio, low, high = self.sequence_ratio(batch), 1 - self.clip_low, 1 + self.clip_high
        if batch.response_advantages is None:
            return clipped_surrogate(ratio, batch.advantages, low, high)
        return batch.at_response_tokens(clipped_surrogate(ratio, batch.response_advantages, low, high))
