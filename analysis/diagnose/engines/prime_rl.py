"""prime-rl of August 2026."""

from __future__ import annotations

from analysis.diagnose.engine import Engine, engine_named
from analysis.diagnose.names import Key, KeyTable

__all__ = ["PRIME_RL"]

_KEYS = (
    Key("train/all/reward/mean", "reward/mean"),
    Key("train/<env>/all/reward/mean", "reward/mean"),
    Key("reward/all/mean", "reward/mean"),
    Key("reward/mean", "reward/mean"),
    Key("train/<env>/all/reward/max", "reward/max"),
    Key("train/<env>/all/reward/min", "reward/min"),
    Key("train/<env>/all/reward/<any>", ""),
    Key("train/<env>/all/solved_none", "group/too_hard_fraction"),
    Key("train/<env>/all/solved_all", "group/too_easy_fraction"),
    Key("train/<env>/all/solved_some", "group/mixed_fraction"),
    Key("solved_none", "group/too_hard_fraction"),
    Key("solved_all", "group/too_easy_fraction"),
    Key("batch/solved_none", "group/too_hard_fraction"),
    Key("batch/solved_all", "group/too_easy_fraction"),
    Key("entropy/all/mean", "entropy/mean"),
    Key("entropy/mean", "entropy/mean"),
    Key("entropy/<any>", ""),
    Key("is_masked_low/all/mean", "clip/low_fraction", kind="sign-aware", note="total-variation mask"),
    Key("is_masked_high/all/mean", "clip/high_fraction", kind="sign-aware", note="total-variation mask"),
    Key("is_masked/all/mean", "clip/fraction", kind="sign-aware", note="total-variation mask"),
    Key("is_masked_low/mean", "clip/low_fraction", kind="sign-aware"),
    Key("is_masked_high/mean", "clip/high_fraction", kind="sign-aware"),
    Key("is_masked/mean", "clip/fraction", kind="sign-aware"),
    Key("is_masked<any>", ""),
    Key("masked_advantage_positive/<any>", ""),
    Key("masked_advantage_negative/<any>", ""),
    Key("optim/grad_norm", "gradient/norm"),
    Key("optim/lr", "learning_rate"),
    Key("optim/<any>", ""),
    Key("train/<env>/all/num_output_tokens/mean", "length/mean"),
    Key("train/<env>/all/num_output_tokens/max", "length/max"),
    Key("train/<env>/all/num_output_tokens/min", "length/min"),
    Key("train/<env>/all/is_truncated/mean", "length/truncated_fraction"),
    Key("train/<env>/all/stop_condition/generation_truncated", "length/truncated_fraction"),
    Key("is_truncated/all/mean", "length/truncated_fraction"),
    Key("loss/mean", "loss"),
    Key("loss/<any>", ""),
    Key("mismatch_kl/all/mean", "sampler/kl_k3", estimate="k3"),
    Key("mismatch_kl/mean", "sampler/kl_k3", estimate="k3"),
    Key("mismatch_kl/<any>", ""),
    Key("masked_mismatch_kl/<any>", ""),
    Key("unmasked_mismatch_kl/<any>", ""),
    Key("kl_ent_ratio/<any>", ""),
    Key("off_policy/mean", "staleness/mean"),
    Key("off_policy/max", "staleness/max"),
    Key("off_policy/<any>", ""),
    Key("eval/<env>/avg@<k>", "evaluation/reward"),
    Key("eval/<any>", ""),
    Key("time/step", "time/step"),
    Key("time/<any>", ""),
    Key("time", "time/clock"),
    Key("perf/<any>", ""),
    Key("train/<any>", ""),
    Key("progress/<any>", ""),
)

PRIME_RL = engine_named(
    Engine(
        name="prime-rl",
        title="prime-rl (August 2026)",
        table=KeyTable(_KEYS),
        distinctive=("orchestrator.", "trainer.loss.", "max_async_level", "rollouts_per_example"),
        settings={
            "loss": ("trainer.loss.type", "loss.type"),
            "temperature": ("orchestrator.sampling.temperature", "sampling.temperature"),
            "top_p": ("orchestrator.sampling.top_p", "sampling.top_p"),
            "max_length": ("orchestrator.sampling.max_tokens", "sampling.max_tokens"),
            "group_size": ("orchestrator.rollouts_per_example", "rollouts_per_example"),
            "learning_rate": ("trainer.optim.lr", "optim.lr"),
            "asynchronous": ("max_async_level", "orchestrator.max_async_level"),
        },
    )
)
