"""The glossary of every metric of the project: one definition per name, and the engines' names for the same formula.

It needs nothing but Python, so that whoever only reads metrics does not wait for PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple

from testbed.errors import ConfigError

__all__ = ["GLOSSARY", "MetricInfo", "glossary_table", "metric_info"]


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
    "probability/likely_fraction": MetricInfo("share of response tokens with old probability q above 0.9", "1"),
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
    "entropy/coefficient": MetricInfo(
        "weight of the bonus for entropy that an adaptive coefficient applies in this step",
        "loss per nat",
        apart="TRL's `entropy_coef` is the coefficient before the gate, which is 0 above the target",
    ),
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
    "mask/fraction": MetricInfo("share of response tokens that a rule of the objective's own leaves out", "1"),
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
