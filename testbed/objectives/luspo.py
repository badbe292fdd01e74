"""LUSPO: GSPO without the division by the response length."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.objectives._base import Hyper, objective
from testbed.objectives.gspo import GSPO


@objective("luspo")
@dataclass(frozen=True, kw_only=True)
class LUSPO(GSPO):
    """GSPO's loss of each response times its length, so that a token weighs the same in a short and a long one.

        s_i = exp((1/n_i) Σ_t z_it),   L = -(1/B) Σ_i n_i · min(s_i A_i, clip(s_i, 1-ε_low, 1+ε_high)·A_i)

        d(B·L)/dlog p_it = -s_i A_i, or 0 for all tokens of a clipped response

    Reference: LUSPO, arXiv 2602.05261.
    Departures: the mean of z is clamped to ±20. None known besides; the paper was read in restatements. TRL reaches it
        only with sequence-level importance sampling; its default token level gives another loss under the same name.
    Gradient: through the mean of z to every token of the response; none to the old policy or the advantages, and none
        where the mean is beyond ±20.

    Example:
        >>> LUSPO().reduction
        'seq_mean_token_sum'
    """

    clip_low: Hyper = 2e-3
    clip_high: Hyper = 2.5e-3
    reduction: str = "seq_mean_token_sum"
