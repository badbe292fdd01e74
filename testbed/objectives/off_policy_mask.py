"""Wrong responses that the policy has moved away from are left out; wraps any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Wrapper, check_range, objective


@objective("off_policy_mask")
@dataclass(frozen=True, kw_only=True)
class OffPolicyMask(Wrapper):
    """Any base objective without the responses of A < 0 that have become unlikely on average.

        gap_i = mean_t (log p_sampler,it - log p_it)          q in place of the sampler where it reported nothing
        ℓ_it = 0 where A_i < 0 and gap_i > δ,  ℓ_base elsewhere

    The gap is signed: a response that became more likely is never dropped. Dropped responses stay in the divisor.

    Reference: DeepSeek-AI, DeepSeek-V3.2, arXiv 2512.02556, eq. 9 as TRL 1.16 cites it; TRL's text suggests δ = 0.5.
    Departures: ms-swift takes dropped responses out of the divisor; slime (δ = 10⁻⁴) and Trinity (0.1) always use q.
    Gradient: that of the base, and 0 for dropped responses; none through the gap.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.full((2, 1), -1.0)
        >>> new = old + torch.tensor([[-1.0], [1.0]])
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=-torch.ones(2), mask=old < 0)
        >>> OffPolicyMask().dropped(batch).tolist()
        [[True], [False]]
    """

    threshold: Hyper = 0.5
    """δ ≥ 0: the mean fall of log-probability, nats per token, beyond which a wrong response is dropped."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "threshold", self.threshold, 0, float("inf"))

    def dropped(self, batch: TokenBatch) -> Tensor:
        """The tokens left out, bool `(..., B, T)`."""
        behaviour = batch.old_log_probs if batch.sampler_log_probs is None else batch.sampler_log_probs
        gap = batch.sequence_mean(behaviour - batch.log_probs.detach())
        return batch.mask & (batch.advantages < 0) & (gap > self.threshold)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {**self.wrapped.own_metrics(batch), "mask/fraction": token_average(self.dropped(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self.wrapped.token_loss(batch).masked_fill(self.dropped(batch), 0)
