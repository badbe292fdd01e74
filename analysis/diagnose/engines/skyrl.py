"""SkyRL of August 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["SKYRL"]

_KEYS = (
    Key("reward/avg_raw_reward", "reward/mean"),
    Key("loss/avg_final_rewards", "reward/penalised"),
    Key("reward/num_zero_variance_filtered", ""),
    Key("reward/avg_pass_at_<k>", ""),
    Key("loss/avg_raw_advantages", "advantage/mean"),
    Key("loss/avg_raw_advantages_abs", "advantage/abs_mean"),
    Key("policy/policy_entropy", "entropy/mean"),
    Key(
        "policy/loss_metrics/clip_ratio",
        "clip/fraction",
        kind="sign-aware",
        by_loss={"cispo": "band/outside_fraction", "sapo": None, "clip_cov": "cov/selected_fraction"},
    ),
    Key("policy/loss_metrics/cispo/ratio_mean", "ratio/mean"),
    Key("policy/loss_metrics/cispo/ratio_min", "ratio/min"),
    Key("policy/loss_metrics/cispo/ratio_max", "ratio/max"),
    Key("policy/loss_metrics/cispo/ratio_clamped_mean", ""),
    Key("policy/policy_kl", "kl/ref"),
    Key("loss/avg_kl", "kl/ref"),
    Key("loss/avg_kl_max", ""),
    Key("policy/grad_norm", "gradient/norm"),
    Key("policy/raw_grad_norm", "gradient/norm"),
    Key("policy/policy_lr", "learning_rate"),
    Key("generate/avg_num_tokens", "length/mean"),
    Key("generate/max_num_tokens", "length/max"),
    Key("generate/min_num_tokens", "length/min"),
    Key("generate/avg_tokens_zero_rewards", "length/wrong_mean"),
    Key("generate/avg_tokens_non_zero_rewards", "length/right_mean"),
    Key("generate/<any>", ""),
    Key("policy/response_length", "length/mean"),
    Key("policy/final_loss", "loss"),
    Key("policy/policy_loss", "loss"),
    Key("policy/rollout_train_logprobs_abs_diff_mean", "sampler/log_abs_mean"),
    Key("policy/rollout_train_logprobs_abs_diff_max", "sampler/log_abs_max"),
    Key("policy/rollout_train_logprobs_abs_diff_<any>", ""),
    Key("policy/minibatch_rollout_logprobs_abs_diff_mean", "sampler/log_abs_mean"),
    Key("policy/minibatch_rollout_logprobs_abs_diff_<any>", ""),
    Key("policy/loss_metrics/is_ratio_mean", "sampler/ratio_mean"),
    Key("policy/loss_metrics/is_ratio_max", "sampler/ratio_max"),
    Key("policy/loss_metrics/is_ratio_min", "", note="0 whenever a token is masked"),
    Key("policy/loss_metrics/is_ratio_std", "", note="includes padding"),
    Key("policy/loss_metrics/tis_<level>_clip_high_ratio", "sampler/limited_fraction"),
    Key("policy/loss_metrics/<kind>_sequence_mask_<any>", "sampler/rejected_fraction"),
    Key("policy/loss_metrics/token_mask_ratio", "sampler/rejected_fraction"),
    Key("policy/<any>", ""),
    Key("async/staleness_mean", "staleness/mean"),
    Key("async/staleness_max", "staleness/max"),
    Key("async/<any>", ""),
    Key("eval/all/avg_score", "evaluation/reward"),
    Key("eval/<set>/avg_score", "evaluation/reward"),
    Key("eval/<any>", ""),
    Key("timing/step", "time/step"),
    Key("timing/<any>", ""),
    Key("trainer/global_step", ""),
    Key("trainer/epoch", ""),
    Key("environment/<any>", ""),
)

_ALGORITHM = "trainer.algorithm"


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    batch, mini = number(flat, "trainer.train_batch_size"), number(flat, "trainer.policy_mini_batch_size")
    epochs = number(flat, "trainer.update_epochs_per_batch")
    n = number(flat, "generator.n_samples_per_prompt") or 1.0
    if batch is not None and mini:
        updates = max(batch / mini, 1.0) * (1.0 if epochs is None else epochs)
        settings.put("updates_per_rollout", updates, "trainer.train_batch_size and trainer.policy_mini_batch_size")
    if mini:
        settings.put("mini_batch", mini * n, "trainer.policy_mini_batch_size and generator.n_samples_per_prompt")
    if str(settings.values.get("loss", "")) == "gspo":
        settings.put("ratio_level", "sequence", f"{_ALGORITHM}.policy_loss_type")
        settings.put("clip_low", 0.2, "eps_clip_low, by default")
        settings.put("clip_high", 0.2, "eps_clip_high, by default")
    kl = flat.get(f"{_ALGORITHM}.use_kl_loss")
    if kl is not None:
        on = str(kl).lower() in {"true", "1"}
        settings.put("beta", number(flat, f"{_ALGORITHM}.kl_loss_coef") if on else 0.0, f"{_ALGORITHM}.kl_loss_coef")


SKYRL = engine_named(
    Engine(
        name="skyrl",
        title="SkyRL (August 2026)",
        table=KeyTable(_KEYS),
        distinctive=("trainer.algorithm.", "generator.sampling_params", "trainer.policy_mini_batch_size"),
        settings={
            "loss": (f"{_ALGORITHM}.policy_loss_type",),
            "clip_low": (f"{_ALGORITHM}.eps_clip_low",),
            "clip_high": (f"{_ALGORITHM}.eps_clip_high",),
            "dual_clip": (f"{_ALGORITHM}.clip_ratio_c",),
            "temperature": ("generator.sampling_params.temperature",),
            "top_k": ("generator.sampling_params.top_k",),
            "top_p": ("generator.sampling_params.top_p",),
            "min_p": ("generator.sampling_params.min_p",),
            "max_length": ("generator.sampling_params.max_generate_length",),
            "group_size": ("generator.n_samples_per_prompt",),
            "learning_rate": ("trainer.policy.optimizer_config.lr",),
            "reduction": (f"{_ALGORITHM}.loss_reduction",),
            "micro_batch": ("trainer.micro_train_batch_size_per_gpu",),
            "gpus": ("trainer.placement.policy_num_gpus_per_node",),
        },
        read=_read,
        updates=("trainer.train_batch_size", "trainer.policy_mini_batch_size", "trainer.update_epochs_per_batch"),
    )
)
