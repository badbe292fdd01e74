"""GMPO: the geometric mean of token ratios, each clipped before it enters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.masking import clamp_log_ratio
from testbed.objectives._base import Hyper, Objective, check_range, clamp, objective, tensor_like


@objective("gmpo")
@dataclass(frozen=True, kw_only=True)
class GMPO(Objective):
    """Pushes a response by the geometric mean of its ratios; single tokens are clipped inside the mean.

        z̃_it = min(z_it, δ_high) where A > 0, max(z_it, -δ_low) where A < 0
        g_i = exp((1/n_i) Σ_t z̃_it),   ℓ_it = -g_i·A_i for every token t,   L = (1/B) Σ_i (1/n_i) Σ_t ℓ_it

        F_it = g_i, but 0 for a token whose own z is clipped; such a token still scales g_i

    Reference: Zhao et al., Geometric-mean policy optimization, arXiv 2507.20673v3.
    Departures: the paper gives one advantage per response; with one per token, each token's sign decides its clip and
        each token's loss has its own A. The mean of z̃ is clamped to ±20.
    Gradient: through the mean of z̃ to every unclipped token of the response; none to the old policy or advantages, and
        none where the mean is beyond ±20.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[1.0, 0.0]], requires_grad=True)  # z = 1 is clipped at 0.4: g = exp(0.2)
        >>> batch = TokenBatch(
        ...     log_probs=new,
        ...     old_log_probs=torch.zeros(1, 2),
        ...     advantages=torch.ones(1),
        ...     mask=torch.ones(1, 2).bool(),
        ... )
        >>> output = GMPO()(batch)
        >>> output.loss.backward()
        >>> round(output.loss.item(), 4), [round(x, 4) for x in new.grad.flatten().tolist()]
        (-1.2214, [0.0, -0.6107])
    """

    clip_low: Hyper = 0.4
    """δ_low ≥ 0, nats: the log-ratio of a token with A < 0 may fall to -δ_low."""
    clip_high: Hyper = 0.4
    """δ_high ≥ 0, nats: the log-ratio of a token with A > 0 may rise to δ_high."""
    reduction: str = "seq_mean_token_mean"

    mixes_advantages = "the sign of each token's advantage decides its factor of the geometric mean"

    def check(self) -> None:
        check_range(self.name, "clip_low", self.clip_low, 0, float("inf"))
        check_range(self.name, "clip_high", self.clip_high, 0, float("inf"))

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        low, high = (tensor_like(bound, batch.log_probs).exp() for bound in (-self.clip_low, self.clip_high))
        return ClipInterval(low, high)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        infinity = float("inf")
        clipped = torch.where(
            batch.advantages > 0,
            clamp(batch.unclamped_log_ratio, -infinity, self.clip_high),
            clamp(batch.unclamped_log_ratio, -self.clip_low, infinity),
        )
        return -clamp_log_ratio(batch.sequence_mean(clipped)).exp() * batch.advantages
