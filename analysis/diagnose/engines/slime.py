"""slime of August 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["SLIME"]

_KEYS = (
    Key("rollout/raw_reward", "reward/mean"),
    Key("rollout/rewards", "", note="already normalised by group, about 0"),
    Key("rollout/advantages", "advantage/mean"),
    Key("rollout/zero_std/count_<reward>", ""),
    Key("train/entropy_loss", "entropy/mean", note="full vocabulary; it is the entropy"),
    Key("train/pg_clipfrac", "clip/fraction", kind="sign-aware", by_loss={"cispo": "band/outside_fraction"}),
    Key("train/ois", "ratio/mean"),
    Key("train/ppo_kl", "kl/old", estimate="k1"),
    Key("train/kl_loss", "kl/ref"),
    Key("train/grad_norm", "gradient/norm"),
    Key("train/lr-pg_0", "learning_rate"),
    Key("train/lr-pg_<i>", ""),
    Key("rollout/response_len/mean", "length/mean"),
    Key("rollout/response_len/max", "length/max"),
    Key("rollout/response_len/min", "length/min"),
    Key("rollout/response_len/median", ""),
    Key("rollout/response_lengths", "length/mean"),
    Key("rollout/truncated_ratio", "length/truncated_fraction"),
    Key("rollout/truncated", "length/truncated_fraction"),
    Key("rollout/repetition_frac", ""),
    Key("train/loss", "loss"),
    Key("train/pg_loss", "loss"),
    Key("train/train_rollout_logprob_abs_diff", "sampler/log_abs_mean"),
    Key("train/tis", "sampler/ratio_mean", note="before its limit"),
    Key("train/tis_abs", ""),
    Key("train/tis_clipfrac", "sampler/limited_fraction"),
    Key("train/opsm_clipfrac", "sampler/rejected_fraction"),
    Key("perf/step_time", "time/step"),
    Key("perf/<any>", ""),
    Key("train/step", ""),
    Key("rollout/step", ""),
    Key("eval/step", ""),
    Key("eval/<set>", "evaluation/reward"),
    Key("rollout/log_probs", ""),
    Key("rollout/ref_log_probs", ""),
    Key("rollout/rollout_log_probs", ""),
    Key("rollout/returns", ""),
    Key("rollout/total_lengths", ""),
)


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    low, high = number(flat, "eps_clip"), number(flat, "eps_clip_high")
    if low is not None:
        settings.put("clip_low", low, "eps_clip")
    if high is not None or low is not None:
        settings.put(
            "clip_high", high if high is not None else low, "eps_clip_high" if high is not None else "eps_clip"
        )
    estimator = str(flat.get("advantage_estimator", ""))
    if estimator:
        settings.put("loss", estimator, "advantage_estimator")
    if estimator == "gspo":
        settings.put("ratio_level", "sequence", "advantage_estimator")
        settings.put("clip_low", 0.2, "eps_clip, by default")
        settings.put("clip_high", 0.2, "eps_clip, by default")
    steps = number(flat, "num_steps_per_rollout")
    prompts, responses = number(flat, "rollout_batch_size"), number(flat, "n_samples_per_prompt")
    trained = number(flat, "global_batch_size")
    if steps is not None:
        settings.put("updates_per_rollout", steps, "num_steps_per_rollout")
    elif prompts is not None and responses is not None and trained:
        updates = max(prompts * responses / trained, 1.0)
        settings.put("updates_per_rollout", updates, "rollout_batch_size, n_samples_per_prompt and global_batch_size")
    if str(flat.get("use_tis", "")).lower() in {"true", "1"}:
        settings.put("correction", "tis", "use_tis")


SLIME = engine_named(
    Engine(
        name="slime",
        title="slime (August 2026)",
        table=KeyTable(_KEYS),
        distinctive=("num_steps_per_rollout", "rollout_max_response_len", "use_tis", "eps_clip_high", "rollout_top_p"),
        settings={
            "dual_clip": ("eps_clip_c",),
            "temperature": ("rollout_temperature",),
            "top_p": ("rollout_top_p",),
            "top_k": ("rollout_top_k",),
            "beta": ("kl_loss_coef",),
            "entropy_coefficient": ("entropy_coef",),
            "max_length": ("rollout_max_response_len",),
            "group_size": ("n_samples_per_prompt",),
            "learning_rate": ("lr",),
            "mini_batch": ("global_batch_size",),
            "micro_batch": ("micro_batch_size",),
        },
        read=_read,
        updates=("num_steps_per_rollout", "rollout_batch_size", "n_samples_per_prompt", "global_batch_size"),
        logging={
            "sampler/log_abs_mean": "--get-mismatch-metrics or --use-tis",
            "ratio/mean": "--use-tis or --get-mismatch-metrics",
        },
    )
)
