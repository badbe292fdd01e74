"""TRL 1.16: GRPOTrainer, and what AsyncGRPO logs differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["COMMON_KEYS", "TRL", "read_trl"]

COMMON_KEYS = (
    Key("reward", "reward/mean"),
    Key("frac_reward_zero_std", "group/zero_variance_fraction"),
    Key("clip_ratio/low_mean", "clip/low_fraction", kind="sign-aware"),
    Key("clip_ratio/high_mean", "clip/high_fraction", kind="sign-aware"),
    Key("clip_ratio/region_mean", "clip/fraction", kind="sign-aware"),
    Key("clip_ratio/low_min", ""),
    Key("clip_ratio/high_max", ""),
    Key("cispo_clip_ratio", "weight/capped_fraction", kind="sign-aware"),
    Key("grad_norm", "gradient/norm"),
    Key("learning_rate", "learning_rate"),
    Key("completions/mean_length", "length/mean"),
    Key("completions/max_length", "length/max"),
    Key("completions/min_length", "length/min"),
    Key("completions/mean_terminated_length", "length/terminated_mean"),
    Key("completions/max_terminated_length", ""),
    Key("completions/min_terminated_length", ""),
    Key("completions/clipped_ratio", "length/truncated_fraction"),
    Key("loss", "loss"),
    Key("policy_loss", ""),
    Key("rewards/<function>/mean", "reward/function"),
    Key("rewards/<function>/std", ""),
    Key("rewards/<function>", "reward/function", note="before TRL 0.17"),
    Key("completion_length", "length/mean", note="before TRL 0.17"),
    Key("eval_reward", "evaluation/reward"),
    Key("eval/reward", "evaluation/reward"),
    Key("eval_rewards/<function>/mean", ""),
    Key("eval_loss", ""),
    Key("eval/<any>", ""),
    Key("eval_<any>", ""),
    Key("num_tokens", ""),
    Key("epoch", ""),
    Key("step", ""),
    Key("step_time", "time/step"),
    Key("sampling/sampling_logp_difference/mean", "sampler/log_abs_mean"),
    Key("sampling/sampling_logp_difference/max", "sampler/log_abs_max"),
    Key("sampling/importance_sampling_ratio/min", "sampler/weight_min", note="after truncation and masking"),
    Key("sampling/importance_sampling_ratio/mean", "sampler/weight_mean", note="after truncation and masking"),
    Key("sampling/importance_sampling_ratio/max", "sampler/weight_max", note="after truncation and masking"),
    Key("train_runtime", ""),
    Key("train_loss", ""),
    Key("train_samples_per_second", ""),
    Key("train_steps_per_second", ""),
    Key("total_flos", ""),
)

_KEYS = (
    *COMMON_KEYS,
    Key("reward_std", "reward/std", scope="batch"),
    Key("entropy", "entropy/mean"),
    Key("ratio", "ratio/mean", note="AsyncGRPO"),
    Key("clip_ratio", "clip/fraction", kind="sign-aware", note="before TRL 0.17"),
    Key(
        "kl",
        "kl/ref",
        estimate="k3",
        by_loss={"async_grpo": "kl/old"},
        note="divergence from the reference; AsyncGRPO logs old against current under this key",
    ),
    Key("sample/staleness_mean", "staleness/mean"),
    Key("sample/staleness_max", "staleness/max"),
    Key("batch/masked_token_frac", "sampler/rejected_fraction"),
    Key("entropy_coef", ""),
    Key("aux_loss", ""),
    Key("vespo/phi_seq_mean", ""),
    Key("tools/call_frequency", ""),
    Key("tools/failure_frequency", ""),
)

PLAIN = {
    "loss": ("loss_type",),
    "ratio_level": ("importance_sampling_level",),
    "dual_clip": ("delta",),
    "temperature": ("temperature",),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "beta": ("beta",),
    "entropy_coefficient": ("entropy_coef",),
    "max_length": ("max_completion_length",),
    "group_size": ("num_generations",),
    "learning_rate": ("learning_rate",),
    "gpus": ("num_processes", "world_size", "nproc_per_node"),
}


def read_trl(flat: Mapping[str, Any], settings: Settings) -> None:
    """What follows from several of TRL's arguments, with TRL's defaults where the arguments are TRL's."""
    loss = str(flat.get("loss_type", "")).lower()
    low, high = number(flat, "epsilon"), number(flat, "epsilon_high")
    judged = loss in {"cispo"} or str(flat.get("importance_sampling_level", "token")).startswith("sequence")
    if loss == "cispo":
        source = "epsilon_high" if high is not None else "epsilon" if low is not None else "epsilon_high, by default"
        cap = high if high is not None else low if low is not None else 0.2
        settings.put("weight_cap", cap, source)
    elif low is not None or high is not None or judged:
        settings.put("clip_low", 0.2 if low is None else low, "epsilon" if low is not None else "epsilon, by default")
        upper = high if high is not None else low if low is not None else 0.2
        source = "epsilon_high" if high is not None else "epsilon" if low is not None else "epsilon, by default"
        settings.put("clip_high", upper, source)
    if low is not None or high is not None:
        settings.put("ratio_level", "token", "importance_sampling_level, by default")
    if "scale_rewards" in flat:
        given = flat["scale_rewards"]
        named = {True: "group", False: "none", "True": "group", "False": "none", "true": "group", "false": "none"}
        settings.put("standardise", named.get(given, str(given)), "scale_rewards")
    if str(flat.get("multi_objective_aggregation", "")) == "normalize_then_sum":
        settings.values["standardise"], settings.sources["standardise"] = "batch", "multi_objective_aggregation"
    for key in ("mask_truncated_completions", "overlong_filter"):
        if key in flat:
            settings.put("mask_truncated", _true(flat[key]), key)
    for key in ("vllm_importance_sampling_mode", "rollout_importance_sampling_mode"):
        if flat.get(key) not in (None, "", "None", "null"):
            settings.put("correction", str(flat[key]), key)
    accumulation = number(flat, "gradient_accumulation_steps")
    generation = number(flat, "steps_per_generation")
    iterations = number(flat, "num_iterations")
    per_device = number(flat, "per_device_train_batch_size")
    batch = number(flat, "generation_batch_size")
    processes = number(flat, "num_processes", "world_size", "nproc_per_node")
    if generation is None and batch is not None and per_device is not None and processes is not None:
        generation = batch / (per_device * processes)
    known = [
        key
        for key in ("num_iterations", "steps_per_generation", "gradient_accumulation_steps", "generation_batch_size")
        if number(flat, key) is not None
    ]
    if known and not (batch is not None and generation is None):
        accumulated = 1.0 if accumulation is None else accumulation
        per_rollout = accumulated if generation is None else generation
        updates = (1.0 if iterations is None else iterations) * per_rollout / accumulated
        assumed = "" if len(known) > 1 or generation is None else ", gradient_accumulation_steps by default"
        settings.put("updates_per_rollout", max(updates, 1.0), " and ".join(known) + assumed)
    if per_device is not None:
        settings.put("micro_batch", per_device, "per_device_train_batch_size")
        total = per_device * (accumulation or 1.0)
        if accumulation is not None:
            settings.put("mini_batch", total, "per_device_train_batch_size and gradient_accumulation_steps")


def _true(value: Any) -> bool:
    return str(value).lower() in {"true", "1", "yes"}


TRL = engine_named(
    Engine(
        name="trl",
        title="TRL 1.16",
        table=KeyTable(_KEYS, prefixes=("train/",)),
        distinctive=(
            "steps_per_generation",
            "num_generations",
            "importance_sampling_level",
            "vllm_",
            "max_completion_length",
            "scale_rewards",
            "epsilon_high",
            "num_iterations",
        ),
        settings=PLAIN,
        read=read_trl,
        updates=("num_iterations", "steps_per_generation", "gradient_accumulation_steps"),
        logging={
            "kl/ref": "beta > 0",
            "sampler/log_abs_mean": "use_vllm=True with vllm_importance_sampling_correction=True",
            "sampler/weight_mean": "use_vllm=True with vllm_importance_sampling_correction=True",
            "evaluation/reward": "eval_strategy=steps and an eval_dataset",
            "entropy/mean": "TRL 0.20 or newer",
            "clip/fraction": "a loss_type other than sapo",
        },
    )
)
