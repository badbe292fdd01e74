"""ROLL of August 2026; domains put a prefix in front of a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["ROLL"]

_OWN = (
    Key("critic/score/mean", "reward/mean"),
    Key("critic/score/max", "reward/max"),
    Key("critic/score/min", "reward/min"),
    Key("critic/rewards/mean", "reward/penalised"),
    Key("critic/advantages/mean", "advantage/mean"),
    Key("critic/advantages/max", "advantage/max"),
    Key("critic/advantages/min", "advantage/min"),
    Key("critic/entropy/mean", "entropy/mean"),
    Key("critic/kl", "kl/ref"),
    Key("actor/ppo_ratio_low_clipfrac", "band/low_fraction", kind="band", note="whatever the sign of A"),
    Key("actor/ppo_ratio_high_clipfrac", "band/high_fraction", kind="band", note="whatever the sign of A"),
    Key("actor/ppo_ratio_clipfrac", "band/outside_fraction", kind="band", note="whatever the sign of A"),
    Key("actor/clipfrac", "clip/fraction", kind="sign-aware"),
    Key("actor/ratio_mean", "ratio/mean"),
    Key("actor/ratio_max", "ratio/max"),
    Key("actor/ratio_min", "ratio/min"),
    Key("actor/approxkl", "kl/old_k2", estimate="k2"),
    Key("actor/policykl", "kl/old", sign=-1.0, estimate="k1", note="new − old: the opposite sign"),
    Key("actor/kl_loss", "kl/ref"),
    Key("actor_train/grad_norm", "gradient/norm"),
    Key("actor/lr", "learning_rate"),
    Key("token/response_length/mean", "length/mean"),
    Key("token/response_length/max", "length/max"),
    Key("token/response_length/min", "length/min"),
    Key("tokens/response_length/mean", "length/mean"),
    Key("token/total_response_length/clip", "length/truncated_fraction"),
    Key("actor/pg_loss", "loss"),
    Key("actor/total_loss", "loss"),
    Key("actor/train_infer_ratio_<agg>_mean", "sampler/ratio_mean"),
    Key("actor/train_infer_diff_<agg>_mean", "sampler/probability_abs_mean"),
    Key("actor/is_weight_clipfrac", "sampler/limited_fraction"),
    Key("time/step_total", "time/step"),
)

_KEYS = (
    *_OWN,
    *(Key(f"<domain>/{item.key}", item.name, item.sign, item.kind, item.estimate, note=item.note) for item in _OWN),
    Key("<worker>/grad_norm", "gradient/norm"),
    Key("critic/raw_advantages/<any>", ""),
    Key("critic/<any>", ""),
    Key("system/<any>", ""),
    Key("time/<any>", ""),
    Key("val/<any>", "evaluation/reward"),
    Key("val_<any>", "evaluation/reward"),
)


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    both = number(flat, "pg_clip")
    settings.put("clip_low", number(flat, "pg_clip_low"), "pg_clip_low")
    settings.put("clip_high", number(flat, "pg_clip_high"), "pg_clip_high")
    settings.put("clip_low", both, "pg_clip")
    settings.put("clip_high", both, "pg_clip")
    level = flat.get("importance_sampling")
    if level in {"seq", "sequence", "token"}:
        settings.put("ratio_level", "token" if level == "token" else "sequence", "importance_sampling")
    if str(flat.get("dual_clip_loss", "")).lower() in {"true", "1"} and both is not None:
        settings.put("dual_clip", 1 + 2 * both, "dual_clip_loss and pg_clip")
    prompts = number(flat, "rollout_batch_size")
    responses = number(flat, "num_return_sequences_in_group", "actor_infer.generating_args.num_return_sequences")
    per_device = number(flat, "actor_train.training_args.per_device_train_batch_size")
    accumulated = number(flat, "actor_train.training_args.gradient_accumulation_steps")
    gpus = number(flat, "actor_train.world_size", "num_gpus")
    epochs = number(flat, "ppo_epochs")
    if None not in (prompts, responses, per_device, accumulated, gpus):
        total = prompts * responses / (per_device * accumulated * gpus)  # type: ignore[operator]
        settings.put("updates_per_rollout", max(total, 1.0) * (epochs or 1.0), "batch sizes and ppo_epochs")


ROLL = engine_named(
    Engine(
        name="roll",
        title="ROLL (August 2026)",
        table=KeyTable(_KEYS),
        distinctive=("pg_clip", "actor_train.", "actor_infer.", "num_return_sequences_in_group"),
        settings={
            "loss": ("pg_variant",),
            "temperature": ("actor_infer.generating_args.temperature",),
            "top_k": ("actor_infer.generating_args.top_k",),
            "top_p": ("actor_infer.generating_args.top_p",),
            "max_length": ("actor_infer.generating_args.max_new_tokens", "response_length"),
            "group_size": ("num_return_sequences_in_group", "actor_infer.generating_args.num_return_sequences"),
            "learning_rate": ("actor_train.training_args.learning_rate",),
            "entropy_coefficient": ("entropy_loss_coef",),
            "asynchronous": ("async_generation_ratio",),
        },
        read=_read,
        updates=("rollout_batch_size", "num_return_sequences_in_group", "ppo_epochs"),
    )
)
