"""TOPR: importance weights for failures only, and never above one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives._base import Objective, objective, score_loss


@objective("topr")
@dataclass(frozen=True, kw_only=True)
class TOPR(Objective):
    """REINFORCE on good responses; on bad ones it fades as the response becomes less likely.

        W_i = exp(Σ_t z_it),   w_i = 1 where A > 0, min(W_i, 1) where A < 0,   ℓ_it = -sg[w_i]·A·log p_it

        F = w_i

    Reference: Le Roux et al., Tapered off-policy REINFORCE, arXiv 2503.14286.
    Departures: the paper weights by the return; here, as everywhere, by the advantage. W is the product over the
        response; versions normalised by length go by the same name elsewhere.
    Gradient: dℓ/dlog p = -w·A; none through the weight, the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> new = torch.tensor([[-2.0, -1.5]], requires_grad=True)
        >>> ones = torch.ones(1, 2)
        >>> batch = TokenBatch(log_probs=new, old_log_probs=-ones, advantages=-ones, mask=ones.bool())
        >>> TOPR()(batch).loss.backward()
        >>> [round(x, 6) for x in new.grad.flatten().tolist()]  # W = exp(-1.5)
        [0.22313, 0.22313]
    """

    cuts_gradient = "the weight w"

    reduction: str = "seq_mean_token_sum"

    def token_loss(self, batch: TokenBatch) -> Tensor:
        tapered = batch.unclamped_log_ratio.detach().sum(-1, keepdim=True).clamp(max=0).exp()
        return score_loss(torch.where(batch.advantages > 0, torch.ones_like(tapered), tapered), batch)
