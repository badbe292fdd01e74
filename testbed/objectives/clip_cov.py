"""Clip-Cov: a few tokens that would cost most entropy are left out of the update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval, token_average
from testbed.objectives._base import Hyper, Objective, check_order, check_range, clipped_surrogate, objective
from testbed.objectives._covariance import draw, largest, token_covariance


@objective("clip_cov")
@dataclass(frozen=True, kw_only=True)
class ClipCov(Objective):
    """The ratio objective without a random few of the tokens whose log-probability and advantage covary strongly.

        Cov_t = (log p_t - mean log p)(A_t - mean A),   means over the N response tokens
        I = ⌊ρN⌋ tokens drawn uniformly from those with ω_low < Cov < ω_high
        ℓ = 0 on I, -rA elsewhere          F = 0 on I, r elsewhere

    To first order entropy falls by the mean of Cov, so the chosen tokens are those that spend it fastest. The choice
    needs the whole step: micro-batches would choose others.

    Reference: Cui et al., The entropy mechanism of reinforcement learning, arXiv 2505.22617v1, Clip-Cov.
    Departures: 1. the draw is a hash of the token's numbers instead of a random generator: uniform, repeatable,
        independent of order and padding. 2. As in the paper's formula no ratio is clipped; its pseudo-code and verl
        also clip, which `clip_low` and `clip_high` switch on; tokens clipped so are not drawn. 3. verl drops at least
        one token even where ρN < 1.
    Gradient: dℓ/dlog p = -F·A; none through the choice, the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> log_probs = torch.tensor([[-1.0, -3.0]])  # deviations +1 and -1; those of A likewise: Cov = 1 twice
        >>> batch = TokenBatch(
        ...     log_probs=log_probs,
        ...     old_log_probs=log_probs,
        ...     advantages=torch.tensor([[1.0, -1.0]]),
        ...     mask=torch.ones(1, 2).bool(),
        ... )
        >>> ClipCov(fraction=1.0, cov_low=0.5)(batch).token_loss.tolist()
        [[0.0, 0.0]]
    """

    needs_whole_batch = True
    exact_on_policy = "tokens of high covariance are left out whatever their ratio"

    fraction: Hyper = 2e-4
    """ρ in [0, 1]: at most this share of the response tokens is left out."""
    cov_low: Hyper = 1.0
    """ω_low: tokens are drawn from those with a covariance above it; nats times units of A."""
    cov_high: Hyper = 5.0
    """ω_high: and below it."""
    clip_low: Hyper | None = None
    """ε_low ≥ 0 of an additional ratio clip, given together with `clip_high`. None: no clip."""
    clip_high: Hyper | None = None
    """ε_high ≥ 0 of an additional ratio clip. None: no clip."""

    def check(self) -> None:
        infinity = float("inf")
        check_range(self.name, "fraction", self.fraction, 0, 1)
        check_range(self.name, "cov_low", self.cov_low, -infinity, infinity)
        check_range(self.name, "cov_high", self.cov_high, -infinity, infinity)
        check_order(self.name, ("cov_low", self.cov_low), ("cov_high", self.cov_high))
        check_range(self.name, "clip_low", self.clip_low, 0, infinity, optional=True)
        check_range(self.name, "clip_high", self.clip_high, 0, infinity, optional=True)

    def clip_interval(self, batch: TokenBatch) -> ClipInterval | None:
        if self.clip_low is None and self.clip_high is None:
            return None
        low = 0.0 if self.clip_low is None else 1 - self.clip_low
        high = float("inf") if self.clip_high is None else 1 + self.clip_high
        return ClipInterval(low, high)

    def selected(self, batch: TokenBatch) -> Tensor:
        """I, the tokens left out, bool `(..., B, T)`."""
        covariance, interval = token_covariance(batch), self.clip_interval(batch)
        candidates = batch.mask & (covariance > self.cov_low) & (covariance < self.cov_high)
        if interval is not None:
            candidates = candidates & ~interval.clipped(batch)
        return largest(draw(batch), candidates, self.fraction, batch)

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {
            "cov/mean": token_average(token_covariance(batch), batch),
            "cov/selected_fraction": token_average(self.selected(batch), batch),
        }

    def token_loss(self, batch: TokenBatch) -> Tensor:
        interval = self.clip_interval(batch)
        if interval is None:
            loss = -batch.ratio * batch.advantages
        else:
            loss = clipped_surrogate(batch.ratio, batch.advantages, interval.low, interval.high)
        return loss.masked_fill(self.selected(batch), 0)
