"""NeMo-RL of August 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["NEMO_RL"]

_KEYS = (
    Key("reward", "reward/mean"),
    Key("filtered_reward", "reward/mean"),
    Key("baseline_reward/pct_0", "group/too_hard_fraction"),
    Key("baseline_reward/pct_1", "group/too_easy_fraction"),
    Key("baseline_reward/pct_mixed", "group/mixed_fraction"),
    Key("advantages/mean", "advantage/mean"),
    Key("advantages/max", "advantage/max"),
    Key("advantages/min", "advantage/min"),
    Key("advantages/sum", ""),
    Key("approx_entropy", "entropy/mean", estimate="sampled", note="importance-weighted −log p of sampled tokens"),
    Key("probs_ratio", "ratio/mean"),
    Key("probs_ratio_min", "ratio/min"),
    Key("probs_ratio_max", "ratio/max"),
    Key("probs_ratio_clamped<any>", ""),
    Key("probs_ratio_clamped", ""),
    Key("kl_penalty", "kl/ref"),
    Key("grad_norm", "gradient/norm", note="a sum over the rollout's updates"),
    Key("lr", "learning_rate"),
    Key("wd", ""),
    Key("mean_gen_tokens_per_sample", "length/mean"),
    Key("max_gen_tokens_per_sample", "length/max"),
    Key("mean_total_tokens_per_sample", ""),
    Key("truncation_rate", "length/truncated_fraction"),
    Key("natural_termination_rate", "length/natural_fraction"),
    Key("loss", "loss", note="a sum over the rollout's updates"),
    Key("token_mult_prob_error", "sampler/error"),
    Key("gen_kl_error", "sampler/kl_k3"),
    Key("policy_kl_error", "sampler/kl_k3"),
    Key("js_divergence_error", ""),
    Key("sampling_importance_ratio", "sampler/ratio_mean"),
    Key("is_oob_ratio", "sampler/limited_fraction"),
    Key("max_seq_mult_prob_error", ""),
    Key("mean_seq_mult_prob_error", ""),
    Key("min_seq_mult_prob_error", ""),
    Key("avg_trajectory_age", "staleness/mean"),
    Key("accuracy", "evaluation/reward"),
    Key("validation/accuracy", "evaluation/reward"),
    Key("validation/<any>", ""),
    Key("timing/train/total_step_time", "time/step"),
    Key("total_step_time", "time/step"),
    Key("timing/<any>", ""),
    Key("performance/<any>", ""),
    Key("global_valid_seqs", ""),
    Key("global_valid_toks", ""),
    Key("num_valid_samples", ""),
)


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    prompts, responses = number(flat, "grpo.num_prompts_per_step"), number(flat, "grpo.num_generations_per_prompt")
    trained = number(flat, "policy.train_global_batch_size")
    if prompts is not None and responses is not None and trained:
        settings.put(
            "updates_per_rollout",
            max(prompts * responses / trained, 1.0),
            "grpo.num_prompts_per_step, grpo.num_generations_per_prompt and policy.train_global_batch_size",
        )
    if str(flat.get("loss_fn.sequence_level_importance_ratios", "")).lower() in {"true", "1"}:
        settings.put("ratio_level", "sequence", "loss_fn.sequence_level_importance_ratios")
    per_node, nodes = number(flat, "cluster.gpus_per_node"), number(flat, "cluster.num_nodes")
    if per_node is not None:
        settings.put("gpus", per_node * (nodes or 1.0), "cluster.gpus_per_node and cluster.num_nodes")


NEMO_RL = engine_named(
    Engine(
        name="nemo-rl",
        title="NeMo-RL (August 2026)",
        table=KeyTable(_KEYS, prefixes=("train/",)),
        distinctive=("grpo.", "loss_fn.", "policy.train_global_batch_size", "cluster."),
        settings={
            "clip_low": ("loss_fn.ratio_clip_min",),
            "clip_high": ("loss_fn.ratio_clip_max",),
            "dual_clip": ("loss_fn.ratio_clip_c",),
            "beta": ("loss_fn.reference_policy_kl_penalty",),
            "temperature": ("policy.generation.temperature",),
            "top_k": ("policy.generation.top_k",),
            "top_p": ("policy.generation.top_p",),
            "max_length": ("policy.generation.max_new_tokens",),
            "group_size": ("grpo.num_generations_per_prompt",),
            "learning_rate": ("policy.optimizer.kwargs.lr",),
            "correction": ("loss_fn.use_importance_sampling_correction",),
            "asynchronous": ("grpo.async_grpo.enabled",),
            "mini_batch": ("policy.train_global_batch_size",),
            "micro_batch": ("policy.train_micro_batch_size",),
        },
        read=_read,
        updates=("grpo.num_prompts_per_step", "grpo.num_generations_per_prompt", "policy.train_global_batch_size"),
    )
)
