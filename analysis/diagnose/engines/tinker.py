"""Tinker cookbook 0.6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["TINKER"]

_KEYS = (
    Key("env/all/reward/total", "reward/mean"),
    Key("env/<env>/reward/total", "reward/mean"),
    Key("env/all/by_group/frac_mixed", "group/mixed_fraction"),
    Key("env/all/by_group/frac_all_good", "group/too_easy_fraction"),
    Key("env/all/by_group/frac_all_bad", "group/too_hard_fraction"),
    Key("optim/entropy", "entropy/mean", estimate="sampled", note="−mean log-probability of sampled tokens"),
    Key("optim/lr", "learning_rate"),
    Key("optim/kl_sample_train_v1", "kl/sampler", estimate="k1"),
    Key("optim/kl_sample_train_v2", "", estimate="k2"),
    Key("kl_policy_base", "kl/ref"),
    Key("env/all/ac_tokens_per_turn", "length/mean"),
    Key("env/all/total_ac_tokens", ""),
    Key("env/<any>", ""),
    Key("optim/<any>", ""),
    Key("test/env/all/reward/total", "evaluation/reward"),
    Key("test/<any>", ""),
    Key("time/total", "time/step"),
    Key("time/<any>", ""),
    Key("progress/<any>", ""),
)


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    substeps = number(flat, "num_substeps")
    settings.put("updates_per_rollout", substeps, "num_substeps")
    low, high = number(flat, "loss_fn_config.clip_low_threshold"), number(flat, "loss_fn_config.clip_high_threshold")
    # Tinker's thresholds are ratios, everybody else's are offsets from 1.
    settings.put("clip_low", None if low is None else 1 - low, "loss_fn_config.clip_low_threshold")
    settings.put("clip_high", None if high is None else high - 1, "loss_fn_config.clip_high_threshold")


TINKER = engine_named(
    Engine(
        name="tinker",
        title="Tinker cookbook 0.6",
        table=KeyTable(_KEYS),
        distinctive=("groups_per_batch", "num_substeps", "loss_fn_config", "loss_fn"),
        settings={
            "loss": ("loss_fn",),
            "temperature": ("temperature",),
            "max_length": ("max_tokens",),
            "group_size": ("group_size",),
            "learning_rate": ("learning_rate",),
            "beta": ("kl_penalty_coef",),
        },
        read=_read,
        updates=("num_substeps",),
    )
)
