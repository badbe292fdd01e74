"""Only the tokens at which the policy hesitates are trained on; wraps any objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import token_average
from testbed.objectives._base import Hyper, Wrapper, check_range, objective, tensor_like


@objective("top_entropy")
@dataclass(frozen=True, kw_only=True)
class TopEntropy(Wrapper):
    """Any base objective on the share ρ of tokens with the highest entropy.

        ℓ = 1{H_new ≥ the (1-ρ)-quantile of H_new over the response tokens}·ℓ_base

    The quantile is interpolated linearly, ties are kept, and dropped tokens stay in the divisor. It is taken over the
    whole step: micro-batches would have others.

    Reference: Wang et al., Beyond the 80/20 rule, arXiv 2506.01939 (ρ = 0.2), as TRL 1.16 and ms-swift 4.6 have it.
    Departures: TRL takes the quantile over the micro-batch of all processes, ms-swift over its own. A penalty wrapped
        inside is masked too; TRL adds its own after the mask, which is `reference_kl(base=top_entropy(…))`.
    Gradient: that of the base, and 0 for dropped tokens; none through the choice.

    Raises:
        BatchError: when called without `entropies`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.full((1, 5), -1.0)
        >>> batch = TokenBatch(
        ...     log_probs=old,
        ...     old_log_probs=old,
        ...     advantages=torch.ones(1),
        ...     mask=old < 0,
        ...     entropies=torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]),
        ... )
        >>> TopEntropy(share=0.5).kept(batch).tolist()  # the median is 0.3
        [[False, False, True, True, True]]
    """

    needs = ("entropies",)
    needs_whole_batch = True
    exact_on_policy = "tokens of low entropy are left out whatever their ratio"

    share: Hyper = 0.2
    """ρ in (0, 1]: the share of tokens that is trained on."""

    def check(self) -> None:
        super().check()
        check_range(self.name, "share", self.share, 0, 1, open_low=True)

    def kept(self, batch: TokenBatch) -> Tensor:
        """The tokens trained on, bool `(..., B, T)`."""
        (entropies,) = batch.require("entropies", reason="top_entropy chooses tokens by them")
        entropies = entropies.detach()
        ordered = entropies.masked_fill(~batch.mask, float("inf")).flatten(-2).sort(dim=-1).values
        last = batch.mask.sum((-2, -1)).unsqueeze(-1) - 1
        share = tensor_like(self.share, ordered)
        share = share.squeeze(-1) if share.dim() >= 2 else share
        place = (1 - share) * last
        below = place.floor().long()
        above = torch.minimum(below + 1, last)
        # One row per share, where there are more shares than batches.
        ordered = ordered + torch.zeros_like(place)
        low, high = (ordered.gather(-1, end.expand(*ordered.shape[:-1], 1)) for end in (below, above))
        # Where both ends are equal the interpolation must not round above them: ties are kept.
        threshold = torch.where(low == high, low, low + (high - low) * (place - below))
        return batch.mask & (entropies >= threshold.unsqueeze(-1))

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        return {**self.wrapped.own_metrics(batch), "mask/fraction": 1 - token_average(self.kept(batch), batch)}

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return self.wrapped.token_loss(batch).masked_fill(~self.kept(batch), 0)
