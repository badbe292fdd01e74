"""Trinity-RFT 0.6 with its verl trainer: verl's names and some of its own."""

from __future__ import annotations

from analysis.diagnose.engine import Engine, engine_named
from analysis.diagnose.engines.verl import VERL_KEYS, read_verl, verl_settings
from analysis.diagnose.names import Key, KeyTable

__all__ = ["TRINITY"]

_KEYS = (
    *VERL_KEYS,
    Key("group_advantages/reward_std/mean", "reward/group_std", scope="group"),
    Key("group_advantages/<any>", ""),
    Key("actor/final_loss", ""),
    Key("rollout/model_version", ""),
    Key("rollout/<any>", ""),
    Key("experience_pipeline/<any>", ""),
    Key("sample/<any>", ""),
)

TRINITY = engine_named(
    Engine(
        name="trinity",
        title="Trinity-RFT 0.6",
        table=KeyTable(_KEYS),
        distinctive=("algorithm.algorithm_type", "synchronizer.", "explorer.", "buffer."),
        settings=verl_settings()
        | {
            "loss": ("algorithm.policy_loss_fn", "algorithm.algorithm_type"),
            "group_size": ("algorithm.repeat_times",),
            "clip_low": ("algorithm.policy_loss_fn_args.clip_range_low", "algorithm.policy_loss_fn_args.clip_range"),
            "clip_high": ("algorithm.policy_loss_fn_args.clip_range_high", "algorithm.policy_loss_fn_args.clip_range"),
        },
        read=read_verl,
        updates=("buffer.batch_size", "buffer.train_batch_size"),
    )
)
