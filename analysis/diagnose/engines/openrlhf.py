"""OpenRLHF 0.11."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.diagnose.engine import Engine, Settings, engine_named, number
from analysis.diagnose.names import Key, KeyTable

__all__ = ["OPENRLHF"]

_KEYS = (
    Key("rollout/reward_mean", "reward/mean"),
    Key("reward", "reward/mean"),
    Key("rollout/reward_std", "reward/std", scope="batch"),
    Key("group_reward_std", "reward/group_std", scope="group"),
    Key("dynamic_filtering_pass_rate", "group/informative_fraction"),
    Key("return", "advantage/mean"),
    Key("entropy_loss", "entropy/mean", note="full vocabulary; it is the entropy"),
    Key("ent_loss", "entropy/mean"),
    Key("ppo_clip_ratio", "clip/fraction", kind="sign-aware"),
    Key("ppo_kl", "kl/old", estimate="k1"),
    Key("kl", "kl/ref"),
    Key("logprobs_diff", ""),
    Key("actor_grad_norm", "gradient/norm", note="of the last optimiser step"),
    Key("grad_norm", "gradient/norm"),
    Key("actor_lr", "learning_rate"),
    Key("act_lr", "learning_rate"),
    Key("rollout/response_length_mean", "length/mean"),
    Key("response_length", "length/mean"),
    Key("gen_len", "length/mean"),
    Key("tot_len", ""),
    Key("total_length", ""),
    Key("rollout/truncated_rate", "length/truncated_fraction"),
    Key("truncated", "length/truncated_fraction"),
    Key("policy_loss", "loss"),
    Key("act_loss", "loss"),
    Key("vllm_kl", "kl/sampler", estimate="k1"),
    Key("is_filter_ratio", "sampler/rejected_fraction"),
    Key("timing/step_total", "time/step"),
    Key("timing/<any>", ""),
    Key("eval/<any>", "evaluation/reward"),
    Key("global_step", ""),
    Key("epoch", ""),
    Key("critic_<any>", ""),
)


def _read(flat: Mapping[str, Any], settings: Settings) -> None:
    pair = flat.get("actor.eps_clip_low_high", flat.get("eps_clip_low_high"))
    if isinstance(pair, str):
        pair = pair.replace(",", " ").split()
    if isinstance(pair, list | tuple) and len(pair) == 2:
        low, high = (number({"value": item}, "value") for item in pair)
        settings.put("clip_low", low, "eps_clip_low_high")
        settings.put("clip_high", high, "eps_clip_low_high")
    both = number(flat, "actor.eps_clip", "eps_clip")
    if both is not None:
        settings.put("clip_low", both, "eps_clip")
        settings.put("clip_high", both, "eps_clip")
    if str(settings.values.get("loss", "")) == "gspo":
        settings.put("ratio_level", "sequence", "policy_loss_type")
        settings.put("clip_low", 0.2, "eps_clip, by default")
        settings.put("clip_high", 0.2, "eps_clip, by default")
    prompts = number(flat, "rollout.batch_size", "rollout_batch_size")
    responses = number(flat, "rollout.n_samples_per_prompt", "n_samples_per_prompt")
    trained = number(flat, "train.batch_size", "train_batch_size")
    epochs = number(flat, "train.max_epochs", "max_epochs")
    if prompts is not None and responses is not None and trained:
        updates = max(prompts * responses / trained, 1.0) * (1.0 if epochs is None else epochs)
        settings.put("updates_per_rollout", updates, "rollout and train batch sizes, n_samples_per_prompt, max_epochs")
    if trained is not None:
        settings.put("mini_batch", trained, "train batch size")


OPENRLHF = engine_named(
    Engine(
        name="openrlhf",
        title="OpenRLHF 0.11",
        table=KeyTable(_KEYS, prefixes=("train/",)),
        distinctive=("actor.eps_clip", "eps_clip_low_high", "rollout_batch_size", "init_kl_coef", "train.max_epochs"),
        settings={
            "loss": ("actor.policy_loss_type", "policy_loss_type"),
            "dual_clip": ("actor.dual_clip", "dual_clip"),
            "temperature": ("rollout.temperature", "temperature"),
            "top_p": ("rollout.top_p", "top_p"),
            "beta": ("algo.kl.init_coef", "init_kl_coef"),
            "entropy_coefficient": ("actor.entropy_coef", "entropy_loss_coef", "entropy_coef"),
            "max_length": ("rollout.max_new_tokens", "generate_max_len"),
            "group_size": ("rollout.n_samples_per_prompt", "n_samples_per_prompt"),
            "learning_rate": ("actor.adam.lr", "actor_learning_rate"),
            "micro_batch": ("train.micro_batch_size", "micro_train_batch_size"),
            "asynchronous": ("train.async_enable", "async_train"),
            "gpus": ("actor.num_gpus_per_node", "actor_num_gpus_per_node"),
        },
        read=_read,
        updates=("rollout.batch_size", "rollout.n_samples_per_prompt", "train.batch_size", "train.max_epochs"),
        logging={
            "entropy/mean": "entropy_coef (0 is allowed)",
            "kl/sampler": "the vLLM importance-sampling correction",
            "sampler/rejected_fraction": "the vLLM importance-sampling correction",
        },
    )
)
