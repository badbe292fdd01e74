"""What is measured on a batch, one definition per metric of the glossary (`testbed.glossary`).

A metric without data is NaN. `clip/…` counts tokens whose gradient is zero because of the objective's interval;
`band/…` counts tokens outside that interval whatever the sign of their advantage. The two are never mixed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.divergences import kl_estimates
from testbed.glossary import GLOSSARY, MetricInfo, glossary_table, metric_info

__all__ = [
    "GLOSSARY",
    "ClipInterval",
    "LengthBias",
    "MetricInfo",
    "batch_metrics",
    "effective_sample_size",
    "glossary_table",
    "length_bias",
    "metric_info",
    "token_average",
]


class ClipInterval(NamedTuple):
    """The ratios an objective leaves alone, as its clip metrics need them.

    Attributes:
        low, high: the interval as ratios, floats or tensors broadcasting to `(..., B, T)`.
        ceiling: for A < 0, the ratio above which the gradient is zero as well (dual clip); `None`: no such ratio.
        ratio: the ratio compared with the interval, `(..., B, T)`; `None`: the token ratio.
        keeps_gradient: True where tokens outside the interval keep a gradient (GPPO, CE-GPPO, CISPO): nothing is
            clipped then, and only `band/outside_fraction` says how many tokens left.
    """

    low: float | Tensor
    high: float | Tensor
    ceiling: float | Tensor | None = None
    ratio: Tensor | None = None
    keeps_gradient: bool = False

    def sides(self, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens without a gradient: A > 0 above, A < 0 below, A < 0 over the ceiling; bool `(..., B, T)` each."""
        compared = batch.ratio.detach() if self.ratio is None else self.ratio.detach()
        positive, negative = batch.mask & (batch.advantages > 0), batch.mask & (batch.advantages < 0)
        nowhere = torch.zeros_like(batch.mask)
        high = nowhere if self.keeps_gradient else positive & (compared > self.high)
        low = nowhere if self.keeps_gradient else negative & (compared < self.low)
        ceiling = nowhere if self.ceiling is None else negative & (compared > self.ceiling)
        return high, low, ceiling

    def clipped(self, batch: TokenBatch) -> Tensor:
        """Response tokens without a gradient for any of these reasons, bool `(..., B, T)`."""
        high, low, ceiling = self.sides(batch)
        return high | low | ceiling

    def outside(self, batch: TokenBatch) -> Tensor:
        """Response tokens outside the interval whatever the sign of A, bool `(..., B, T)`."""
        compared = batch.ratio.detach() if self.ratio is None else self.ratio.detach()
        return batch.mask & ((compared > self.high) | (compared < self.low))


def token_average(values: Tensor, batch: TokenBatch) -> Tensor:
    """Mean of `values` `(..., B, T)` over the batch's own response tokens; NaN without any."""
    mask = batch.mask
    return torch.where(mask, values.to(batch.log_probs.dtype), 0).sum((-2, -1)) / mask.sum((-2, -1))


def effective_sample_size(log_weights: Tensor, mask: Tensor) -> Tensor:
    """(Σ w)² / Σ w² over the entries of the mask, w = e^log_weights: how many equal weights would scatter as much.

    N where all weights are equal, 1 where a single one counts. For tokens give `batch.log_ratio` and `batch.mask`, for
    whole responses the sum of a response's log-ratios, `(..., B, 1)`, and whether it has any token.

    Args:
        log_weights: `(..., B, T)`, any common constant added; what stands outside the mask is not read.
        mask: bool `(..., B, T)`.

    Returns:
        `(...,)`, in entries; NaN without any.

    Example:
        >>> weights = torch.tensor([[3.0, 1.0, 9.0]], dtype=torch.float64)
        >>> round(effective_sample_size(weights.log(), torch.tensor([[True, True, False]])).item(), 9)  # 4²/10
        1.6
    """
    masked = log_weights.detach().masked_fill(~mask, -torch.inf).flatten(-2)
    # Twice the largest would overflow where the weights themselves do not.
    scaled = (masked - masked.amax(-1, keepdim=True)).exp()
    return scaled.sum(-1).square() / scaled.square().sum(-1)


class LengthBias(NamedTuple):
    """How the weight of a response grows with its length.

    Attributes:
        slope: of a response's weight on its length, both relative to their means: 0 where every response weighs the
            same, 1 where it weighs as its length.
        standard_error: of the slope, robust against a spread that depends on the length (HC3).
    """

    slope: Tensor
    standard_error: Tensor


def length_bias(weights: Tensor, mask: Tensor) -> LengthBias:
    """Regress the weight of a response in a step on its length.

    Give what a step is made of: |dL/dlog p| of every token for an objective with its advantages, or `token_weights` for
    a mean alone. Without a bias of its own a mean over responses has slope 0, one over tokens slope 1; advantages that
    go with the length show as well, which is why the error is stated.

        y_i = Σ_t w_it / mean,  x_i = n_i / mean,   slope = Σ (x - 1)(y - 1) / Σ (x - 1)²

    Args:
        weights: `(..., B, T)`; their size counts, not their sign.
        mask: bool `(..., B, T)`. Empty responses take no part.

    Returns:
        `(...,)` each; NaN where all lengths are equal, or the weights are all 0. The error is NaN where one response
        alone has a length of its own: nothing is known of its scatter.

    Reference: MacKinnon and White, Some heteroskedasticity-consistent covariance matrix estimators, 1985 (HC3).

    Example:
        >>> mask = torch.arange(4) < torch.tensor([[1], [2], [3], [4]])
        >>> length_bias(mask.double() / mask.sum(), mask).slope.item()  # a mean over tokens
        1.0
    """
    kept = mask.to(weights.dtype)
    lengths, totals = kept.sum(-1), (weights.detach().abs().masked_fill(~mask, 0)).sum(-1)
    present = lengths > 0
    count = present.sum(-1, keepdim=True)
    x, y = (
        (values / (values.sum(-1, keepdim=True) / count) - 1).masked_fill(~present, 0) for values in (lengths, totals)
    )
    spread = x.square().sum(-1, keepdim=True)
    slope = (x * y).sum(-1, keepdim=True) / spread
    free = 1 - 1 / count - x.square() / spread
    # A leverage of 1 leaves no residual; rounding leaves one of 1e-16.
    scatter = torch.where(free > 1e-9, (y - slope * x) / free, torch.nan) * x
    variance = scatter.where(present & (x != 0), torch.zeros_like(x)).square().sum(-1) / spread.squeeze(-1).square()
    return LengthBias(slope.squeeze(-1), variance.sqrt())


def batch_metrics(batch: TokenBatch, interval: ClipInterval | None) -> dict[str, Tensor]:
    """The metrics every objective reports on a batch; `(...,)` each, NaN where there is no data.

    Args:
        batch: the tokens.
        interval: the objective's interval; `None` leaves the clip and band metrics at NaN.
    """
    mask, ratio, advantages = batch.mask, batch.ratio.detach(), batch.advantages
    log_ratio = batch.log_ratio.detach()
    missing = torch.full_like(batch.lengths.sum(-1), torch.nan)
    infinity = float("inf")

    pull = ratio * advantages
    pull_total = pull.abs().sum((-2, -1))
    used = (advantages != 0).any(-1).sum(-1, dtype=ratio.dtype)
    metrics = {
        "ratio/mean": token_average(ratio, batch),
        "ratio/min": ratio.masked_fill(~mask, infinity).amin((-2, -1)),
        "ratio/max": ratio.masked_fill(~mask, -infinity).amax((-2, -1)),
        "ratio/log_abs_mean": token_average(log_ratio.abs(), batch),
        "ratio/one_fraction": token_average(log_ratio == 0, batch),
        "probability/likely_fraction": token_average(batch.old_log_probs > math.log(0.9), batch),
        "advantage/mean": token_average(advantages, batch),
        "advantage/nonzero_fraction": used / (batch.lengths > 0).sum(-1),
        "advantage/positive_token_fraction": token_average(advantages > 0, batch),
        "advantage/positive_loss_fraction": pull.clamp(min=0).sum((-2, -1)) / pull_total,
        "kl/old": token_average(-log_ratio, batch),
        "kl/old_k3": token_average(kl_estimates["k3"](log_ratio), batch),
        "entropy/mean": missing,
        "entropy/ratio_mean": missing,
        "kl/ref": missing,
        "kl/sampler": missing,
    }
    metrics |= _clip_metrics(batch, interval, pull, pull_total, missing)
    if batch.entropies is not None:
        entropies = batch.entropies.detach()
        metrics["entropy/mean"] = token_average(entropies, batch)
        if batch.old_entropies is not None:
            counted = mask & (batch.old_entropies > 0)
            quotient = torch.where(counted, entropies / batch.old_entropies.where(counted, torch.ones_like(ratio)), 0)
            metrics["entropy/ratio_mean"] = quotient.sum((-2, -1)) / counted.sum((-2, -1))
    if batch.ref_log_probs is not None:
        difference = batch.ref_log_probs - batch.log_probs.detach()
        metrics["kl/ref"] = token_average(kl_estimates["k3"](difference), batch)
    if batch.sampler_log_probs is not None:
        metrics["kl/sampler"] = token_average(batch.sampler_log_probs - batch.old_log_probs, batch)
    return metrics


def _clip_metrics(
    batch: TokenBatch,
    interval: ClipInterval | None,
    pull: Tensor,
    pull_total: Tensor,
    missing: Tensor,
) -> dict[str, Tensor]:
    if interval is None:
        return dict.fromkeys((name for name in GLOSSARY if name.startswith(("clip/", "band/"))), missing)
    high, low, ceiling = interval.sides(batch)
    clipped, outside = high | low | ceiling, interval.outside(batch)
    sides = {"outside": outside, "inside": batch.mask & ~outside}
    read = {"probability": batch.old_log_probs.exp(), "entropy": batch.old_entropies}
    return {
        "clip/high_fraction": token_average(high, batch),
        "clip/low_fraction": token_average(low, batch),
        "clip/ceiling_fraction": token_average(ceiling, batch),
        "clip/fraction": token_average(clipped, batch),
        "clip/gradient_mass_fraction": torch.where(clipped, pull.abs(), 0).sum((-2, -1)) / pull_total,
        "band/outside_fraction": token_average(outside, batch),
        **{
            f"band/{side}_{name}": missing if values is None else _mean_where(chosen, values)
            for side, chosen in sides.items()
            for name, values in read.items()
        },
    }


def _mean_where(chosen: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` over the chosen tokens, `(...,)`; NaN without any."""
    return torch.where(chosen, values, 0).sum((-2, -1)) / chosen.sum((-2, -1))
