"""AReaL 1.0."""

from __future__ import annotations

from analysis.diagnose.engine import Engine, engine_named
from analysis.diagnose.names import Key, KeyTable

__all__ = ["AREAL"]

_KEYS = (
    Key("ppo_actor/task_reward/avg", "reward/mean"),
    Key("ppo_actor/task_reward/max", "reward/max"),
    Key("ppo_actor/task_reward/min", "reward/min"),
    Key("ppo_actor/final_reward/avg", "reward/penalised"),
    Key("ppo_actor/final_reward/<any>", ""),
    Key("ppo_actor/advantages/avg", "advantage/mean"),
    Key("ppo_actor/advantages/max", "advantage/max"),
    Key("ppo_actor/advantages/min", "advantage/min"),
    Key("ppo_actor/update/entropy/avg", "entropy/mean"),
    Key("ppo_actor/update/entropy/<any>", ""),
    Key("ppo_actor/update/clip_ratio/avg", "clip/fraction", kind="sign-aware"),
    Key("ppo_actor/update/clip_ratio", "clip/fraction", kind="sign-aware"),
    Key("ppo_actor/update/dual_clip_ratio/avg", "clip/ceiling_fraction", kind="sign-aware"),
    Key("ppo_actor/update/dual_clip_ratio", "clip/ceiling_fraction", kind="sign-aware"),
    Key("ppo_actor/update/importance_weight/avg", "ratio/mean"),
    Key("ppo_actor/update/importance_weight/max", "ratio/max"),
    Key("ppo_actor/update/importance_weight/min", "ratio/min"),
    Key("ppo_actor/update/approx_kl/avg", "kl/old", sign=-1.0, estimate="k1", note="new − old: the opposite sign"),
    Key("ppo_actor/update/approx_kl/<any>", ""),
    Key("ppo_actor/kl_rewards/avg", "kl/ref"),
    Key("ppo_actor/update/grad_norm", "gradient/norm"),
    Key("ppo_actor/update/grad_norm/avg", "gradient/norm"),
    Key("ppo_actor/update/lr", "learning_rate"),
    Key("ppo_actor/update/lr/avg", "learning_rate"),
    Key("ppo_actor/seq_len/avg", "length/mean", note="with the prompt"),
    Key("ppo_actor/seq_len/max", "length/max", note="with the prompt"),
    Key("ppo_actor/seq_len/min", "length/min", note="with the prompt"),
    Key("ppo_actor/correct_seq_len/avg", "length/right_mean"),
    Key("ppo_actor/incorrect_seq_len/avg", "length/wrong_mean"),
    Key("ppo_actor/no_eos_ratios/avg", "length/truncated_fraction"),
    Key("ppo_actor/no_eos_ratios", "length/truncated_fraction"),
    Key("ppo_actor/update/actor_loss/avg", "loss"),
    Key("ppo_actor/update/actor_loss", "loss"),
    Key("ppo_actor/update/behave_imp_weight/avg", "sampler/ratio_mean"),
    Key("ppo_actor/update/behave_imp_weight/max", "sampler/ratio_max"),
    Key("ppo_actor/update/behave_imp_weight/min", "sampler/ratio_min"),
    Key("ppo_actor/update/behave_approx_kl/avg", "kl/sampler", sign=-1.0, estimate="k1"),
    Key("ppo_actor/update/rs_filtered_fraction/avg", "sampler/rejected_fraction"),
    Key("ppo_actor/update/rs_filtered_fraction", "sampler/rejected_fraction"),
    Key("ppo_actor/<any>", ""),
    Key("version_stats/<any>", ""),
    Key("eval-rollout/<any>", ""),
    Key("rollout/<any>", ""),
    Key("timeperf/train_step", "time/step"),
    Key("timeperf/<any>", ""),
)

AREAL = engine_named(
    Engine(
        name="areal",
        title="AReaL 1.0",
        table=KeyTable(
            (
                *_KEYS,
                *(
                    Key(item.key.removeprefix("ppo_actor/"), item.name, item.sign, item.kind, item.estimate)
                    for item in _KEYS
                    if item.key.startswith("ppo_actor/update/")
                ),
            )
        ),
        distinctive=("actor.eps_clip", "gconfig.", "actor.ppo_n_minibatches", "rollout.max_head_offpolicyness"),
        settings={
            "ratio_level": ("actor.importance_sampling_level",),
            "clip_low": ("actor.eps_clip",),
            "clip_high": ("actor.eps_clip_higher", "actor.eps_clip"),
            "dual_clip": ("actor.c_clip",),
            "updates_per_rollout": ("actor.ppo_n_minibatches",),
            "beta": ("actor.kl_ctl",),
            "temperature": ("gconfig.temperature",),
            "top_k": ("gconfig.top_k",),
            "top_p": ("gconfig.top_p",),
            "max_length": ("gconfig.max_new_tokens",),
            "group_size": ("gconfig.n_samples",),
            "learning_rate": ("actor.optimizer.lr",),
            "asynchronous": ("rollout.max_head_offpolicyness",),
        },
        updates=("actor.ppo_n_minibatches",),
    )
)
