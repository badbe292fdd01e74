"""One definition per metric: what is measured on a batch, and the glossary of every metric of the project.

A metric without data is NaN. `clip/…` counts tokens whose gradient is zero because of the objective's interval;
`band/…` counts tokens outside that interval whatever the sign of their advantage. The two are never mixed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.divergences import kl_estimates
from testbed.errors import ConfigError

__all__ = ["GLOSSARY", "ClipInterval", "MetricInfo", "batch_metrics", "glossary_table", "token_average"]


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


class MetricInfo(NamedTuple):
    """Glossary entry of a metric.

    Attributes:
        formula: what is computed, over which tokens.
        unit: its unit, "1" for pure numbers.
        verl: the same quantity's name in verl 0.9, empty where it has none.
        trl: the same quantity's name in TRL 1.16, empty where it has none.
        apart: where an engine's number is another one, or logs something else under a name that looks the same.
    """

    formula: str
    unit: str
    verl: str = ""
    trl: str = ""
    apart: str = ""


_BY_RESPONSE = "TRL counts responses and not tokens with sequence-level importance sampling"

GLOSSARY: dict[str, MetricInfo] = {
    "ratio/mean": MetricInfo("mean of r = p/q over response tokens", "1"),
    "ratio/min": MetricInfo("smallest r of a response token", "1"),
    "ratio/max": MetricInfo("largest r of a response token", "1"),
    "ratio/log_abs_mean": MetricInfo("mean of |log p - log q| over response tokens", "nats"),
    "ratio/one_fraction": MetricInfo("share of response tokens with r exactly 1", "1"),
    "clip/high_fraction": MetricInfo(
        "share of response tokens with A > 0 and r above the interval, gradient therefore 0",
        "1",
        trl="clip_ratio/high_mean",
        apart=_BY_RESPONSE,
    ),
    "clip/low_fraction": MetricInfo(
        "share of response tokens with A < 0 and r below the interval, gradient therefore 0",
        "1",
        trl="clip_ratio/low_mean",
        apart=_BY_RESPONSE,
    ),
    "clip/ceiling_fraction": MetricInfo(
        "share of response tokens with A < 0 and r above the dual-clip ceiling, gradient therefore 0",
        "1",
        verl="actor/pg_clipfrac_lower",
    ),
    "clip/fraction": MetricInfo(
        "high + low + ceiling: the token clipping ratio (TCR)",
        "1",
        trl="clip_ratio/region_mean",
        apart="TRL leaves the ceiling of `delta` out. So does verl's `actor/pg_clipfrac`, which is the whole band for "
        "cispo, the chosen tokens for clip_cov and always 0 for sapo",
    ),
    "clip/gradient_mass_fraction": MetricInfo("Σ |rA| over clipped tokens / Σ |rA| over response tokens", "1"),
    "band/outside_fraction": MetricInfo("share of response tokens with r outside the interval, whatever A", "1"),
    "band/outside_probability": MetricInfo("mean old probability q of the tokens with r outside the interval", "1"),
    "band/inside_probability": MetricInfo("mean old probability q of the tokens with r inside the interval", "1"),
    "band/outside_entropy": MetricInfo("mean H_old of the tokens with r outside the interval", "nats"),
    "band/inside_entropy": MetricInfo("mean H_old of the tokens with r inside the interval", "nats"),
    "advantage/mean": MetricInfo(
        "mean of A over response tokens", "reward or standard deviations", verl="critic/advantages/mean"
    ),
    "advantage/nonzero_fraction": MetricInfo(
        "share of non-empty responses with an advantage other than 0: the response utilisation ratio (RUR)",
        "1",
    ),
    "advantage/positive_token_fraction": MetricInfo("share of response tokens with A > 0", "1"),
    "advantage/positive_loss_fraction": MetricInfo("Σ rA over A > 0 / Σ |rA|, before any clipping", "1"),
    "entropy/mean": MetricInfo(
        "mean full-vocabulary entropy at response tokens",
        "nats",
        verl="actor/entropy_loss",
        trl="entropy",
        apart="verl's `actor/entropy` is that of the old policy; its `actor/entropy_loss` follows `loss_agg_mode`",
    ),
    "entropy/ratio_mean": MetricInfo("mean of H_new/H_old over response tokens with H_old > 0", "1"),
    "kl/old": MetricInfo(
        "mean of log q - log p: the k1 estimate of KL(old ‖ current)",
        "nats per token",
        verl="actor/ppo_kl",
        apart="not 0 in verl with one update per rollout: sampling and training engine then disagree",
    ),
    "kl/old_k3": MetricInfo("mean of r - 1 - log r: the k3 estimate of KL(old ‖ current)", "nats per token"),
    "kl/ref": MetricInfo(
        "mean of e^d - d - 1 with d = log p_ref - log p: the k3 estimate of KL(current ‖ reference)",
        "nats per token",
        apart="TRL's `kl` is that times the ratio unless `use_bias_correction_kl=False`; verl's `actor/kl_loss` is the "
        "estimate of `kl_loss_type`, clamped at 10 for k3",
    ),
    "kl/sampler": MetricInfo(
        "mean of log p_sampler - log q: the k1 estimate of KL(sampler ‖ old)",
        "nats per token",
        verl="rollout_corr/kl",
    ),
    "erc/masked_fraction": MetricInfo("share of response tokens whose entropy ratio is outside its band", "1"),
    "erc/masked_entropy": MetricInfo("mean H_old of the tokens masked by the entropy band", "nats"),
    "erc/kept_entropy": MetricInfo("mean H_old of the tokens kept by the entropy band", "nats"),
    "bapo/clip_low": MetricInfo("lower bound of the ratio chosen for this batch", "1"),
    "bapo/clip_high": MetricInfo("upper bound of the ratio chosen for this batch", "1"),
    "bapo/positive_fraction": MetricInfo("positive tokens' share of the summed contribution at the chosen bounds", "1"),
    "cov/mean": MetricInfo(
        "mean of (log p - mean log p)(A - mean A) over response tokens: to first order the entropy spent per unit step",
        "nats times units of A",
    ),
    "cov/selected_fraction": MetricInfo(
        "share of response tokens that their covariance singled out: left out by clip_cov, penalised by kl_cov", "1"
    ),
    "dppo/masked_fraction": MetricInfo(
        "share of response tokens whose probability moved too far in A's direction, gradient therefore 0", "1"
    ),
    "sampler/weight_mean": MetricInfo("mean weight q/p_sampler over response tokens, after its limits", "1"),
    "sampler/limited_fraction": MetricInfo("share of response tokens whose weight q/p_sampler is beyond a limit", "1"),
    "exact/return": MetricInfo(
        "expected reward of the current policy, by dynamic programming, mean over prompts", "reward"
    ),
    "exact/regret": MetricInfo("optimum of the environment minus exact/return", "reward"),
    "exact/success": MetricInfo("probability of a correct response, by dynamic programming, mean over prompts", "1"),
    "exact/entropy": MetricInfo(
        "entropy of a whole response, by dynamic programming, mean over prompts", "nats per response"
    ),
    "exact/token_entropy": MetricInfo("exact/entropy divided by the expected response length", "nats per token"),
    "exact/kl_step": MetricInfo(
        "KL(policy before ‖ policy after) of this iteration's updates, mean over prompts", "nats per response"
    ),
    "exact/kl_initial": MetricInfo("KL(current ‖ initial policy), mean over prompts", "nats per response"),
    "exact/kl_cumulative": MetricInfo("sum of exact/kl_step over the iterations so far", "nats per response"),
    "exact/tv_step": MetricInfo(
        "total variation between the policies before and after this iteration's updates, "
        "mean over the states visited before",
        "1",
    ),
    "gradient/norm": MetricInfo(
        "Euclidean norm of the gradient of an update before it is clipped, mean over the iteration's updates",
        "1",
        verl="actor/grad_norm",
        trl="grad_norm",
        apart="TRL logs that of the last update before a row",
    ),
    "gradient/norm_max": MetricInfo("largest gradient norm of an update of the iteration", "1"),
    "reward/mean": MetricInfo(
        "mean sampled reward of the iteration's rollouts", "reward", verl="critic/score/mean", trl="reward"
    ),
    "group/rounds": MetricInfo("generations it took to fill a step with groups that are kept", "1"),
    "group/informative_fraction": MetricInfo("share of generated groups that were kept", "1"),
    "group/unscorable_fraction": MetricInfo("share of completions whose answer could not be read", "1"),
    "update/refused": MetricInfo("1 where a step was refused because its gradient was not finite, else 0", "1"),
    "group/zero_variance_fraction": MetricInfo(
        "share of groups whose rewards are all equal but for rounding",
        "1",
        trl="frac_reward_zero_std",
        apart="TRL takes a standard deviation below 1e-8, whatever the size of the rewards, and that of the whole "
        'batch with `scale_rewards="batch"` or `normalize_then_sum`',
    ),
}
"""Every metric of the project: name to formula, unit and the engines' names for the same formula."""


def token_average(values: Tensor, batch: TokenBatch) -> Tensor:
    """Mean of `values` `(..., B, T)` over the batch's own response tokens; NaN without any."""
    mask = batch.mask
    return torch.where(mask, values.to(batch.log_probs.dtype), 0).sum((-2, -1)) / mask.sum((-2, -1))


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


def glossary_table() -> str:
    """The glossary as a Markdown table, one row a metric."""
    rows = ["| metric | formula | unit | verl | TRL | where theirs differ |", "|---|---|---|---|---|---|"]
    for name, info in sorted(GLOSSARY.items()):
        verl, trl = (engine and f"`{engine}`" for engine in (info.verl, info.trl))
        rows.append(f"| `{name}` | {info.formula} | {info.unit} | {verl} | {trl} | {info.apart} |")
    return "\n".join(rows)


def metric_info(name: str) -> MetricInfo:
    """The glossary entry of `name`.

    Raises:
        ConfigError: the metric is not in the glossary.
    """
    if name not in GLOSSARY:
        raise ConfigError(f"metric {name!r} is not in the glossary; add its formula to testbed.diagnostics.GLOSSARY")
    return GLOSSARY[name]
