"""verl 0.9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["VERL_KEYS", "read_verl", "verl_settings"]

_CLIPPED: dict[str, str | None] = {
    "cispo": "band/outside_fraction",
    "clip_cov": "cov/selected_fraction",
    "kl_cov": None,
    "sapo": None,
}
"""What actor/pg_clipfrac counts under losses other than a clipped surrogate."""

VERL_KEYS = (
    Key("critic/score/mean", "reward/mean"),
    Key("critic/score/max", "reward/max"),
    Key("critic/score/min", "reward/min"),
    Key("critic/rewards/mean", "reward/penalised"),
    Key("critic/rewards/max", ""),
    Key("critic/rewards/min", ""),
    Key("critic/advantages/mean", "advantage/mean"),
    Key("critic/advantages/max", "advantage/max"),
    Key("critic/advantages/min", "advantage/min"),
    Key("critic/returns/<any>", ""),
    Key("critic/values/<any>", ""),
    Key("critic/<any>", ""),
    Key("actor/entropy", "entropy/mean", note="full vocabulary, before the update"),
    Key("actor/entropy_loss", "entropy/mean", note="full vocabulary; it is the entropy, not a loss"),
    Key("actor/pg_clipfrac", "clip/fraction", kind="sign-aware", by_loss=_CLIPPED),
    Key("actor/pg_clipfrac_lower", "clip/ceiling_fraction", kind="sign-aware", note="dual clip, not the lower bound"),
    Key("actor/ppo_kl", "kl/old", estimate="k1"),
    Key("actor/kl_loss", "kl/ref"),
    Key("actor/kl_coef", ""),
    Key("actor/reward_kl_penalty", "kl/ref"),
    Key("actor/reward_kl_penalty_coeff", ""),
    Key("actor/grad_norm", "gradient/norm", note="before clipping"),
    Key("actor/lr", "learning_rate"),
    Key("actor/pg_loss", "loss", note="policy term only"),
    Key("actor/loss", ""),
    Key("actor/perf/<any>", ""),
    Key("response_length/mean", "length/mean"),
    Key("response_length/max", "length/max"),
    Key("response_length/min", "length/min"),
    Key(
        "response_length/clip_ratio",
        "length/truncated_fraction",
        note="responses that fill the padded width, which in the v1 trainer is the longest response of the batch",
    ),
    Key("response_length_non_aborted/<any>", ""),
    Key("response/aborted_ratio", ""),
    Key("prompt_length/<any>", "", note="prompts, not responses"),
    Key("rollout_corr/kl", "kl/sampler", estimate="k1"),
    Key("rollout_corr/k3_kl", "sampler/kl_k3", estimate="k3"),
    Key("rollout_corr/rollout_is_mean", "sampler/weight_mean", note="after truncation"),
    Key("rollout_corr/rollout_is_min", "sampler/weight_min"),
    Key("rollout_corr/rollout_is_max", "sampler/weight_max"),
    Key("rollout_corr/rollout_is_eff_sample_size", "sampler/effective_fraction"),
    Key("rollout_corr/rollout_is_oob_ratio", "sampler/limited_fraction"),
    Key("rollout_corr/rollout_rs_seq_masked_fraction", "sampler/rejected_fraction"),
    Key("rollout_corr/rollout_rs_masked_fraction", "sampler/rejected_fraction"),
    Key("rollout_corr/<any>", ""),
    Key("training/rollout_probs_diff_mean", "sampler/probability_abs_mean"),
    Key("training/rollout_probs_diff_max", ""),
    Key("training/rollout_probs_diff_std", ""),
    Key("training/rollout_actor_probs_pearson_corr", "sampler/probability_correlation"),
    Key("training/off_policy/trajectory_staleness/mean", "staleness/mean"),
    Key("training/off_policy/trajectory_staleness/max", "staleness/max"),
    Key("training/off_policy/trajectory_staleness/min", ""),
    Key("training/filter_groups/<any>", ""),
    Key("training/global_step", ""),
    Key("training/epoch", ""),
    Key("val-core/<set>/mean@<k>", "evaluation/reward"),
    Key("val-core/<set>/acc/<any>", "evaluation/reward"),
    Key("val-core/<any>", "evaluation/reward"),
    Key("val/test_score/<set>", "evaluation/reward"),
    Key("val-aux/<any>", ""),
    Key("timing_s/step", "time/step"),
    Key("timing_s/<any>", ""),
    Key("timing_per_token_ms/<any>", ""),
    Key("perf/time_per_step", "time/step"),
    Key("perf/<any>", ""),
    Key("global_seqlen/<any>", ""),
)

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def verl_settings() -> dict[str, tuple[str, ...]]:
    """Verl's configuration keys."""
    return {
        "loss": (f"{_ACTOR}.policy_loss.loss_mode", "actor.policy_loss.loss_mode", "policy_loss.loss_mode"),
        "dual_clip": (f"{_ACTOR}.clip_ratio_c", "actor.clip_ratio_c", "clip_ratio_c"),
        "temperature": (f"{_ROLLOUT}.temperature", "rollout.temperature"),
        "top_k": (f"{_ROLLOUT}.top_k", "rollout.top_k"),
        "top_p": (f"{_ROLLOUT}.top_p", "rollout.top_p"),
        "entropy_coefficient": (f"{_ACTOR}.entropy_coeff", "actor.entropy_coeff", "entropy_coeff"),
        "max_length": ("data.max_response_length", f"{_ROLLOUT}.response_length"),
        "group_size": (f"{_ROLLOUT}.n", "rollout.n"),
        "learning_rate": (f"{_ACTOR}.optim.lr", "actor.optim.lr"),
        "reduction": (f"{_ACTOR}.loss_agg_mode", "actor.loss_agg_mode", "loss_agg_mode"),
    }


def read_verl(flat: Mapping[str, Any], settings: Settings) -> None:
    """What follows from several of verl's keys."""

    def first(*names: str) -> tuple[float | None, str]:
        for name in names:
            for key in (f"{_ACTOR}.{name}", f"actor.{name}", name):
                found = number(flat, key)
                if found is not None:
                    return found, key
        return None, ""

    both, both_key = first("clip_ratio")
    for side in ("low", "high"):
        value, key = first(f"clip_ratio_{side}")
        if value is None:
            value, key = both, both_key
        if value is not None:
            settings.put(f"clip_{side}", value, key)
    if any(key.startswith(f"{_ACTOR}.") for key in flat):
        settings.put("loss", "vanilla", "policy_loss.loss_mode, by default")
    loss = str(settings.values.get("loss", ""))
    if loss == "gspo" and "clip_low" not in settings.values:
        settings.put("clip_low", 0.2, "clip_ratio, by default")
        settings.put("clip_high", 0.2, "clip_ratio, by default")
    if loss == "gspo":
        settings.put("ratio_level", "sequence", "policy_loss.loss_mode")
    prompts = number(flat, "data.train_batch_size")
    mini, mini_key = first("ppo_mini_batch_size")
    epochs, _ = first("ppo_epochs")
    n = number(flat, f"{_ROLLOUT}.n", "rollout.n") or 1.0
    if prompts is not None and mini is not None and mini > 0:
        updates = (1.0 if epochs is None else epochs) * max(prompts / mini, 1.0)
        source = f"data.train_batch_size, {mini_key} and ppo_epochs{' by default' if epochs is None else ''}"
        settings.put("updates_per_rollout", updates, source)
    if mini is not None:
        settings.put("mini_batch", mini * n, f"{mini_key} and rollout.n")
    gpus = (number(flat, "trainer.n_gpus_per_node") or 0) * (number(flat, "trainer.nnodes") or 1)
    if gpus:
        settings.put("gpus", gpus, "trainer.n_gpus_per_node and trainer.nnodes")
    micro, micro_key = first("ppo_micro_batch_size_per_gpu")
    if micro is not None:
        settings.put("micro_batch", micro, micro_key)
    for key in (f"{_ACTOR}.use_dynamic_bsz", "actor.use_dynamic_bsz"):
        if key in flat:
            settings.put("dynamic_micro_batch", _true(flat[key]), key)
    for key in (f"{_ACTOR}.use_kl_loss", "actor.use_kl_loss"):
        if key in flat:
            coefficient, coefficient_key = first("kl_loss_coef")
            settings.put("beta", coefficient if _true(flat[key]) else 0.0, coefficient_key or key)
    if "algorithm.norm_adv_by_std_in_grpo" in flat:
        name = "algorithm.norm_adv_by_std_in_grpo"
        settings.put("standardise", "group" if _true(flat[name]) else "none", name)
    for name in ("rollout_is", "rollout_rs"):
        key = f"algorithm.rollout_correction.{name}"
        if flat.get(key) not in (None, "", "null", "None"):
            settings.put("correction", str(flat[key]), key)
    bypass = flat.get("algorithm.rollout_correction.bypass_mode")
    if bypass is not None:
        settings.put("asynchronous", _true(bypass), "algorithm.rollout_correction.bypass_mode")


def _true(value: Any) -> bool:
    return str(value).lower() in {"true", "1", "yes"}


VERL = engine_named(
    Engine(
        name="verl",
        title="verl 0.9",
        table=KeyTable(VERL_KEYS),
        distinctive=("actor_rollout_ref.", "algorithm.rollout_correction", "critic.optim", "data.train_batch_size"),
        settings=verl_settings(),
        read=read_verl,
        updates=("data.train_batch_size", f"{_ACTOR}.ppo_mini_batch_size", f"{_ACTOR}.ppo_epochs"),
        logging={
            "sampler/probability_abs_mean": f"{_ROLLOUT}.calculate_log_probs=True",
            "kl/sampler": "algorithm.rollout_correction.rollout_is or rollout_rs",
            "sampler/weight_mean": "algorithm.rollout_correction.rollout_is",
            "sampler/rejected_fraction": "algorithm.rollout_correction.rollout_rs",
            "kl/ref": f"{_ACTOR}.use_kl_loss=True",
            "entropy/mean": f"{_ACTOR}.calculate_entropy=True",
            "evaluation/reward": "trainer.test_freq > 0",
        },
    )
)
