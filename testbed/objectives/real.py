"""REAL: reinforcement as classification, right responses against wrong ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.masking import clamp_log_ratio
from testbed.objectives._base import Hyper, Objective, check_range, objective, tensor_like


@objective("real")
@dataclass(frozen=True, kw_only=True)
class REAL(Objective):
    """Raises the right and lowers the wrong responses of a group by a logistic loss of their mean log-ratios.

        σ_i = mean_t z_it
        ℓ_group = log(1 + Σ_{wrong} e^{σ_i/τ}) + log(1 + Σ_{right} e^{-σ_i/τ}),   L = mean over groups

        dℓ_group/dlog p_it = ±(1/(τ n_i))·e^{±σ_i/τ}/(1 + Σ_{same side} e^{±σ_j/τ})          + wrong, - right

    A response is right where A > 0 and wrong where A < 0; the size of A plays no part. A group of one side alone gives
    0 and counts in the mean. No response's weight exceeds 1/τ. At ratio 1 it is 1/(τ(1 + n_side)): a lone right
    response among eight is pushed four times as hard as each of the seven wrong ones.

    Reference: REAL, arXiv 2602.05630, the authors' code (Red-RL/REAL 1c30726; τ = 0.5) and ms-swift 4.6.0, which agree.
    Departures: 1. right and wrong are the sign of the advantage, as in ms-swift; the authors ask for rewards of exactly
        1 and 0. Groups whose rewards agree have no advantages and give 0. 2. ℓ_group is spread evenly over the tokens
        of the group, so that `seq_mean_token_sum`, the default, makes it the mean over groups.
    Gradient: as above; none to the old policy or the advantages.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> old = torch.full((2, 1), -1.0)
        >>> batch = TokenBatch(log_probs=old, old_log_probs=old, advantages=torch.tensor([1.0, -1.0]), mask=old < 0)
        >>> REAL()(batch).loss.item()  # 2 log 2
        1.386294...
    """

    needs_whole_batch = True
    compares_responses = True
    exact_on_policy = "a response's weight depends on how many of its group are on its side, and not on A"

    tau: Hyper = 0.5
    """τ > 0: the temperature; no response's weight exceeds 1/τ."""
    reduction: str = "seq_mean_token_sum"

    def check(self) -> None:
        check_range(self.name, "tau", self.tau, 0, float("inf"), open_low=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        sign = batch.sequence_mean(batch.advantages).sign()
        present = (batch.lengths > 0).unsqueeze(-1)
        if batch.groups is None:
            together = present.new_ones(()).expand(*present.shape[:-1], present.shape[-2])
        else:
            together = batch.groups.unsqueeze(-1) == batch.groups.unsqueeze(-2)
        together = together & present.mT
        score = clamp_log_ratio(batch.sequence_mean(batch.unclamped_log_ratio)) / tensor_like(self.tau, batch.log_probs)
        members = together.sum(-1, keepdim=True).clamp(min=1)
        both_sides = torch.ones_like(present)
        # In the batch's own precision: a truth value divided by a count would be single, and a tenth is not exact.
        groups = (present.to(score.dtype) / members).sum(-2, keepdim=True)
        loss = torch.zeros_like(score)
        for side in (1, -1):
            chosen = together & (sign == side).mT
            # log(1 + Σ e^x): the 1 is a further x of 0. At a small τ the exponentials themselves would overflow.
            exponents = (-side * score).mT.expand(*score.shape[:-1], chosen.shape[-1])
            exponents = exponents.masked_fill(~chosen, -torch.inf)
            loss = loss + torch.cat([torch.zeros_like(score), exponents], -1).logsumexp(-1, keepdim=True)
            both_sides = both_sides & chosen.any(-1, keepdim=True)
        loss = loss * both_sides
        share = present.sum(-2, keepdim=True) / (groups * members * batch.lengths.clamp(min=1).unsqueeze(-1))
        return batch.at_response_tokens(loss * share)
