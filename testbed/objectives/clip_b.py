"""Clip_B: punished tokens that stand out by how much entropy their update would cost are left out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Hyper, check_range, objective
from testbed.objectives._entropy_clip import EntropyClip, deviation, entropy_slope, some_spread


@objective("clip_b")
@dataclass(frozen=True, kw_only=True)
class ClipB(EntropyClip):
    """PPO without the tokens of A < 0 that lie far below the mean of the batch in what they do to entropy.

        S = q·(H_old + log q)          raising the token's logit by ε changes entropy by -εS, to first order
        dropped where A < 0 and S - mean S < -μ·sd S          mean and sd over the response tokens of the batch
        ℓ = 0 where dropped, PPO's elsewhere

    S < 0 marks a token less likely than e^-H: to raise it would raise entropy, to punish it lowers it.

    Reference: arXiv 2602.03392, as Trinity-RFT 0.6.0 has it (μ = 2.5).
    Departures: dropped tokens stay in the divisor, as in every objective here; Trinity takes them out
        (`preset="trinity"`).
    Gradient: PPO's, and 0 where dropped; none through the choice.

    Raises:
        BatchError: when called without `old_entropies`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.tensor([[0.5, 0.5, 0.1]]).log()
        >>> batch = TokenBatch(
        ...     log_probs=old,
        ...     old_log_probs=old,
        ...     advantages=-torch.ones(1),
        ...     mask=old < 0,
        ...     old_entropies=torch.ones(1, 3),
        ... )
        >>> ClipB(mu=1.0).dropped(batch).tolist()  # S = 0.153, 0.153, -0.130
        [[False, False, True]]
    """

    mu: Hyper = 2.5
    """μ ≥ 0: how many standard deviations below the mean a token of A < 0 may lie."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "mu", self.mu, 0, float("inf"))

    def dropped(self, batch: TokenBatch) -> Tensor:
        centred, spread = deviation(entropy_slope(batch), batch)
        return batch.mask & (batch.advantages < 0) & (centred < -self.mu * spread) & some_spread(spread)
