"""ms-swift 4.6: TRL's names, with what it logs beside and differently."""

from __future__ import annotations

from analysis.diagnose.engine import Engine, engine_named
from analysis.diagnose.engines.trl import COMMON_KEYS, PLAIN, read_trl
from analysis.diagnose.names import Key, KeyTable

__all__ = ["MS_SWIFT"]

_KEYS = (
    *COMMON_KEYS,
    Key(
        "reward_std", "reward/group_std", scope="group", note="mean of group deviations; batch with scale_rewards=batch"
    ),
    Key("entropy/mean", "entropy/mean"),
    Key("entropy/max", "entropy/max"),
    Key("entropy/min", "entropy/min"),
    Key("entropy/threshold", ""),
    Key("clip_ratio", "clip/fraction", kind="sign-aware", note="Liger path"),
    Key("kl", "kl/ref", estimate="k3"),
    Key("rollout_correction/kl", "kl/sampler"),
    Key("rollout_correction/k3_kl", "sampler/kl_k3"),
    Key("rollout_correction/is_weight_mean", "sampler/weight_mean"),
    Key("rollout_correction/ess", "sampler/effective_fraction"),
    Key("rollout_correction/clipped_frac", "sampler/limited_fraction"),
    Key("rollout_correction/<any>", ""),
    Key("global_step/max_steps", ""),
    Key("elapsed_time", "time/elapsed"),
    Key("remaining_time", ""),
    Key("memory(GiB)", ""),
    Key("train_speed(iter/s)", ""),
    Key("train_speed(s/it)", "time/step"),
    Key("percentage", ""),
)

MS_SWIFT = engine_named(
    Engine(
        name="ms-swift",
        title="ms-swift 4.6",
        table=KeyTable(_KEYS, prefixes=("train/",)),
        distinctive=("rlhf_type", "overlong_filter", "rollout_importance_sampling", "log_entropy", "dynamic_sample"),
        settings=PLAIN,
        read=read_trl,
        updates=("num_iterations", "steps_per_generation", "gradient_accumulation_steps"),
        logging={
            "entropy/mean": "log_entropy: true",
            "kl/ref": "beta > 0",
            "kl/sampler": "rollout_importance_sampling_mode",
            "sampler/weight_mean": "rollout_importance_sampling_mode",
            "sampler/kl_k3": "rollout_importance_sampling_mode",
        },
    )
)
