"""What of TRL's configuration contradicts an objective, said before anything is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from testbed.engines.trl.sampler import truncations
from testbed.errors import ConfigError
from testbed.objectives import Objective

__all__ = ["DECIDED_BY_THE_OBJECTIVE", "check_sampling", "check_settings", "check_stop"]

DECIDED_BY_THE_OBJECTIVE = (
    "delta",
    "entropy_coef",
    "epsilon",
    "epsilon_high",
    "importance_sampling_level",
    "loss_type",
    "multi_objective_aggregation",
    "off_policy_mask_threshold",
    "sapo_temperature_neg",
    "sapo_temperature_pos",
    "scale_rewards",
    "top_entropy_quantile",
    "use_adaptive_entropy",
    "use_bias_correction_kl",
    "vespo_k_neg",
    "vespo_k_pos",
    "vespo_lambda_neg",
    "vespo_lambda_pos",
)
"""Settings of TRL's own losses. Here they would be ignored, so that a value other than TRL's default is an error."""

COUNTS = (
    "gradient_accumulation_steps",
    "max_completion_length",
    "num_generations",
    "num_iterations",
    "per_device_train_batch_size",
    "steps_per_generation",
)
"""Settings of which there must be at least one; TRL finds out while it trains."""


def check_settings(objective: Objective, args: Any, rollout_func: Any = None) -> None:
    """What of TRL's configuration contradicts an objective, before a trainer is made.

    Raises:
        ConfigError: a setting would have no effect, or the objective needs another.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    for name in DECIDED_BY_THE_OBJECTIVE:
        value = getattr(args, name, None)
        if name in defaults and value != defaults[name]:
            raise ConfigError(
                f"{name}={value!r} would have no effect: the loss is {objective.label()}. Leave it out of GRPOConfig "
                "and give the objective, the advantage or a wrapper that setting"
            )
    if objective.adapts:
        raise ConfigError(
            f"{objective.label()} changes from step to step ({objective.adapts}), and this trainer keeps one objective "
            "for all of them. Leave the wrapper out; entropy_bonus has a coefficient that stays"
        )
    for name in COUNTS:
        count = getattr(args, name)
        if count is None or count < 1:
            raise ConfigError(f"{name} is {count}; expected a whole number of at least 1")
    if args.beta and "ref_log_probs" not in objective.needs:
        raise ConfigError(
            f"beta={args.beta} would have no effect: {objective.label()} has no reference term. Use "
            f"reference_kl(base={objective.label()},coefficient={args.beta}) and leave beta out"
        )
    if args.steps_per_generation % args.gradient_accumulation_steps:
        raise ConfigError(
            f"steps_per_generation={args.steps_per_generation} is not a multiple of gradient_accumulation_steps="
            f"{args.gradient_accumulation_steps}; an optimiser step would then mix two generations, and its "
            "token count would be unknown when its first micro-batch is due"
        )
    if "temperature" in (args.generation_kwargs or {}):
        raise ConfigError(
            "generation_kwargs sets temperature, and the trainer would score responses at another; set the trainer's "
            "own temperature"
        )
    corrects, truncated = "sampler_log_probs" in objective.needs, truncations(args)
    if truncated and not corrects and rollout_func is None:
        named = " and ".join(f"{name}={value!r}" for name, value in truncated.items())
        raise ConfigError(
            f"with {named} responses come from another distribution than the policy's, and {objective.label()} would "
            f"take them for the policy's own; use importance_correction(base={objective.label()}), which weighs every "
            "token by the quotient of both, or sample from the whole distribution"
        )
    if corrects and not truncated and not args.use_vllm and rollout_func is None:
        raise ConfigError(
            f"{objective.label()} corrects for a sampler with other probabilities than the trainer, but transformers' "
            "generate samples from the trainer's own. Leave the correction out, or use vLLM or a rollout_func"
        )
    if args.use_vllm and args.vllm_importance_sampling_correction and not corrects:
        raise ConfigError(
            "vllm_importance_sampling_correction is on, TRL's default, and would have no effect. Wrap the objective: "
            f"importance_correction(base={objective.label()}), or switch it off"
        )


def check_stop(args: Any, stop: Sequence[str], rollout_func: Any) -> None:
    """What of TRL's configuration contradicts stop strings.

    Raises:
        ConfigError: somebody else decides where a response ends, or TRL would take stopped responses for truncated.
    """
    if not stop:
        return
    if rollout_func is not None:
        raise ConfigError("stop has no effect beside a rollout_func, which decides itself where a response ends")
    if args.mask_truncated_completions:
        raise ConfigError(
            "mask_truncated_completions would leave out every response that a stop string ended: TRL knows end tokens "
            "only. Leave one of the two out"
        )


def check_sampling(args: Any, prompts: int | None, rounds: int, routing_replay: bool) -> None:
    """What of TRL's configuration contradicts the data set, dynamic sampling or routing replay.

    Args:
        args: TRL's configuration.
        prompts: how many there are; `None` for a streamed data set.
        rounds: most rounds of sampling a batch may take.
        routing_replay: whether a mixture of experts replays the old policy's choice.

    Raises:
        ConfigError: two settings contradict each other.
    """
    if rounds < 1:
        raise ConfigError(f"dynamic_sampling is {rounds}; expected at least 1 round, 1 replaces no group")
    if routing_replay and (args.gradient_checkpointing or rounds > 1):
        raise ConfigError(
            "routing_replay holds the choice of experts during one forward pass over one batch; "
            "gradient_checkpointing repeats the pass, and dynamic_sampling joins batches. Switch "
            "those off"
        )
    needed = args.generation_batch_size // args.num_generations
    if prompts is not None and prompts < needed:
        raise ConfigError(
            f"a rollout takes {needed} prompts and train_dataset has {prompts}; TRL leaves an incomplete rollout out "
            "and would train on nothing. Give more prompts or a smaller batch"
        )
    local = args.per_device_train_batch_size * args.steps_per_generation
    if rounds > 1 and local % args.num_generations:
        raise ConfigError(
            f"dynamic sampling replaces whole groups on each process, but {local} responses a process and "
            f"generation are not a multiple of num_generations={args.num_generations}. Change "
            "per_device_train_batch_size or steps_per_generation"
        )
