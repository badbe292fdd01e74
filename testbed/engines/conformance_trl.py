"""TRL's losses: `GRPOTrainer._compute_loss` of the installed version, on a trainer without a model."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines

MAX_LENGTH = 256
"""The maximum completion length that TRL's dr_grpo divides by."""
LAST_ENTROPY = 0.1
"""The mean entropy of the step before, nats: below TRL's target of 0.2."""


def _loss(
    loss_type: str | None = None,
    *,
    trainer: Literal["grpo", "gmpo"] = "grpo",
    sampler_cap: float | None = None,
    **settings: Any,
) -> EngineLoss:
    """The loss of a trainer with a real configuration, and stand-ins for the model and the processes around it."""
    chosen = settings if loss_type is None else {"loss_type": loss_type, **settings}
    return deferred(lambda: _trainer_loss(trainer, sampler_cap, chosen))


def _trainer_loss(kind: Literal["grpo", "gmpo"], sampler_cap: float | None, settings: dict[str, Any]) -> EngineLoss:
    with warnings.catch_warnings():
        # Deprecations between TRL and transformers, and that GMPO is experimental, are not the reader's concern.
        warnings.simplefilter("ignore")
        from trl import GRPOConfig
        from trl.experimental.gmpo import GMPOConfig, GMPOTrainer
        from trl.trainer.grpo_trainer import GRPOTrainer

        trainer_class, config_class = (GRPOTrainer, GRPOConfig) if kind == "grpo" else (GMPOTrainer, GMPOConfig)
        config = config_class(
            output_dir="unused",
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=8,
            max_completion_length=MAX_LENGTH,
            **settings,
        )
    trainer = _bare_trainer(trainer_class, config, sampler_cap)

    def loss(batch: TokenBatch) -> Tensor:
        assert batch.entropies is not None
        # What an adaptive coefficient remembers of the step before, which every call is the next of.
        trainer.entropy_coef, trainer._last_world_entropy = config.entropy_coef, LAST_ENTROPY
        statistics = (batch.log_probs, batch.entropies, None)
        trainer._get_per_token_logps_and_entropies = lambda *arguments, **keywords: statistics
        nothing = torch.zeros(batch.mask.shape[0], 1, dtype=torch.int64)
        inputs = {
            "prompt_ids": nothing,
            "prompt_mask": nothing,
            "completion_ids": torch.zeros(batch.mask.shape, dtype=torch.int64),
            "completion_mask": batch.mask.to(batch.log_probs.dtype),
            "advantages": batch.advantages[:, 0],
            "old_per_token_logps": batch.old_log_probs,
            "ref_per_token_logps": batch.ref_log_probs,
            "num_items_in_batch": batch.mask.sum(),
        }
        if config.off_policy_mask_threshold is not None:
            inputs["sampling_per_token_logps"] = batch.sampler_log_probs
        if sampler_cap is not None:
            # TRL computes these while it generates; its loss multiplies with them.
            assert batch.sampler_log_probs is not None
            weights = (batch.old_log_probs - batch.sampler_log_probs).exp()
            inputs["importance_sampling_ratio"] = weights.clamp(max=sampler_cap)
        result: Tensor = trainer._compute_loss(SimpleNamespace(), inputs)
        return result

    return loss


def _with_an_empty_response(loss: EngineLoss) -> EngineLoss:
    def extended(batch: TokenBatch) -> Tensor:
        def row_more(values: Tensor) -> Tensor:
            return torch.cat([values, torch.zeros_like(values[:1])])

        fields = ("log_probs", "old_log_probs", "advantages", "mask", "entropies")
        return loss(TokenBatch(**{name: row_more(getattr(batch, name)) for name in fields}))

    return extended


def _bare_trainer(trainer_class: Any, config: Any, sampler_cap: float | None) -> Any:
    """What the trainer's constructor sets before the first loss, and nothing of what needs a model."""
    trainer = object.__new__(trainer_class)
    attributes = {
        "args": config,
        "model": SimpleNamespace(training=True),
        "accelerator": SimpleNamespace(
            num_processes=1,
            sync_gradients=True,
            device=torch.device("cpu"),
            gather=lambda values: values,
            pad_across_processes=lambda values, **details: values,
            reduce=lambda values, reduction: values,
        ),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "current_gradient_accumulation_steps": 1,
        "aux_loss_enabled": False,
        "loss_type": config.loss_type,
        "beta": config.beta,
        "epsilon_low": config.epsilon,
        "epsilon_high": config.epsilon if config.epsilon_high is None else config.epsilon_high,
        "importance_sampling_level": config.importance_sampling_level,
        "max_completion_length": config.max_completion_length,
        "off_policy_mask_threshold": config.off_policy_mask_threshold,
        "top_entropy_quantile": config.top_entropy_quantile,
        "entropy_coef": config.entropy_coef,
        "use_adaptive_entropy": config.use_adaptive_entropy,
        "_entropy_bonus_enabled": not math.isclose(config.entropy_coef, 0) or config.use_adaptive_entropy,
        "_entropy_window_stats": None,
        "use_vllm": sampler_cap is not None,
        "vllm_importance_sampling_correction": sampler_cap is not None,
    }
    for name, value in attributes.items():
        object.__setattr__(trainer, name, value)
    config.steps_per_generation = 1
    return trainer


TIGHT: dict[str, Any] = {"epsilon": 3e-4, "epsilon_high": 4e-4}
SINGLE_TAU = float(torch.tensor(1.05, dtype=torch.float32))
COMPARISONS = (
    Comparison(objective="grpo", setting="grpo", loss=_loss("grpo")),
    Comparison(
        objective="grpo",
        setting="grpo, one more response that is empty",
        loss=_with_an_empty_response(_loss("grpo")),
        because="an empty response counts in the mean over responses (as sequence_count can make it here)",
    ),
    Comparison(objective="ppo", setting="bnpo", loss=_loss("bnpo")),
    Comparison(objective="ppo(dual_clip=3.0)", setting="bnpo, delta=3", loss=_loss("bnpo", delta=3.0)),
    Comparison(
        objective="ppo(dual_clip=1.1)",
        setting="bnpo, delta=1.1",
        loss=_loss("bnpo", delta=1.1),
        because="delta below 1 + epsilon_high caps positive tokens too, and negative ones at 1 + epsilon_high",
        reproduced_by="ppo(dual_clip=1.2,clip_high=0.1)",
    ),
    Comparison(
        objective=f"dr_grpo(max_length={MAX_LENGTH})",
        setting=f"dr_grpo, max_completion_length={MAX_LENGTH}",
        loss=_loss("dr_grpo"),
    ),
    Comparison(
        objective="dr_grpo",
        setting=f"dr_grpo, max_completion_length={MAX_LENGTH}",
        loss=_loss("dr_grpo"),
        because="the divisor is the maximum completion length, not the padded width of the batch",
        reproduced_by=f"dr_grpo(max_length={MAX_LENGTH})",
    ),
    Comparison(objective="dapo", setting="dapo, epsilon_high=0.28", loss=_loss("dapo", epsilon_high=0.28)),
    Comparison(
        objective="dapo",
        setting="dapo",
        loss=_loss("dapo"),
        because="epsilon_high falls back to epsilon = 0.2",
        reproduced_by="dapo(clip_high=0.2)",
    ),
    Comparison(
        objective="gspo",
        setting="grpo, sequence level, epsilons 3e-4 and 4e-4",
        loss=_loss("grpo", importance_sampling_level="sequence", **TIGHT),
    ),
    Comparison(
        objective="gspo_token",
        setting="grpo, sequence level, epsilons 3e-4 and 4e-4",
        loss=_loss("grpo", importance_sampling_level="sequence", **TIGHT),
    ),
    Comparison(
        objective="gspo",
        setting="dapo (the default), sequence level, epsilons 3e-4 and 4e-4",
        loss=_loss("dapo", importance_sampling_level="sequence", **TIGHT),
        because="the default mean is over tokens, so that a long response weighs more",
        reproduced_by="gspo(reduction=token_mean)",
    ),
    Comparison(
        objective="luspo",
        setting="luspo, sequence level, epsilons 2e-3 and 2.5e-3",
        loss=_loss("luspo", importance_sampling_level="sequence", epsilon=2e-3, epsilon_high=2.5e-3),
    ),
    Comparison(
        objective="luspo",
        setting="luspo, epsilons 2e-3 and 2.5e-3",
        loss=_loss("luspo", epsilon=2e-3, epsilon_high=2.5e-3),
        because="the importance sampling level defaults to the token, which leaves PPO with another mean",
        reproduced_by="ppo(clip_low=0.002,clip_high=0.0025,reduction=seq_mean_token_sum)",
    ),
    Comparison(
        objective="cispo(clip_high=4.0)", setting="cispo, epsilon_high=5", loss=_loss("cispo", epsilon_high=5.0)
    ),
    Comparison(objective="cispo", setting="cispo, epsilon_high=1.2", loss=_loss("cispo", epsilon_high=1.2)),
    Comparison(
        objective="cispo",
        setting="cispo",
        loss=_loss("cispo"),
        because="epsilon_high is an absolute ceiling of the weight and falls back to epsilon = 0.2",
        reproduced_by="cispo(clip_high=-0.8)",
    ),
    Comparison(
        objective="sapo",
        setting="sapo",
        loss=_loss("sapo"),
        because="the temperatures pass through float32, where 1.05 is 1.0499999523",
        reproduced_by=f"sapo(tau_neg={SINGLE_TAU!r})",
    ),
    Comparison(objective="vespo", setting="vespo", loss=_loss("vespo")),
    Comparison(
        objective="gmpo", setting="experimental gmpo", loss=_loss(trainer="gmpo", epsilon=0.4, epsilon_high=0.4)
    ),
    Comparison(
        objective="reference_kl",
        setting="grpo, beta=0.04, use_bias_correction_kl=False",
        loss=_loss("grpo", beta=0.04, use_bias_correction_kl=False),
    ),
    Comparison(
        objective="reference_kl",
        setting="grpo, beta=0.04",
        loss=_loss("grpo", beta=0.04),
        because="the penalty is multiplied by the ratio by default, which changes its gradient even at ratio 1",
        reproduced_by="reference_kl(importance_weighted=True)",
    ),
    Comparison(
        objective="entropy_bonus",
        setting="bnpo, entropy_coef=0.01",
        loss=_loss("bnpo", entropy_coef=0.01),
    ),
    Comparison(
        objective="entropy_bonus(base=grpo)",
        setting="grpo, entropy_coef=0.01",
        loss=_loss("grpo", entropy_coef=0.01),
        because="the bonus is a mean over tokens whatever the mean of the policy loss",
        reproduced_by="entropy_bonus(base=grpo,entropy_reduction=token_mean)",
    ),
    Comparison(
        objective=f"entropy_bonus(base=dr_grpo(max_length={MAX_LENGTH}),entropy_reduction=token_mean)",
        setting=f"dr_grpo, max_completion_length={MAX_LENGTH}, entropy_coef=0.01",
        loss=_loss("dr_grpo", entropy_coef=0.01),
    ),
    Comparison(
        objective="entropy_bonus(base=luspo,entropy_reduction=token_mean)",
        setting="luspo, sequence level, epsilons 2e-3 and 2.5e-3, entropy_coef=0.01",
        loss=_loss("luspo", importance_sampling_level="sequence", epsilon=2e-3, epsilon_high=2.5e-3, entropy_coef=0.01),
    ),
    Comparison(
        objective=f"adaptive_entropy(base=grpo,coefficient=0.01,last_entropy={LAST_ENTROPY})",
        setting="grpo, use_adaptive_entropy, entropy_coef=0.01",
        loss=_loss("grpo", use_adaptive_entropy=True, entropy_coef=0.01),
    ),
    Comparison(
        objective="top_entropy(base=grpo)",
        setting="grpo, top_entropy_quantile=0.2",
        loss=_loss("grpo", top_entropy_quantile=0.2),
    ),
    Comparison(
        objective="off_policy_mask(base=grpo)",
        setting="grpo, off_policy_mask_threshold=0.5",
        loss=_loss("grpo", off_policy_mask_threshold=0.5),
    ),
    Comparison(
        objective="importance_correction(base=grpo)",
        setting="grpo, token_truncate weights of at most 2",
        loss=_loss("grpo", sampler_cap=2.0),
    ),
    Comparison(
        objective="importance_correction(base=reference_kl(importance_weighted=True))",
        setting="grpo, beta=0.04, token_truncate weights of at most 2",
        loss=_loss("grpo", sampler_cap=2.0, beta=0.04),
        because="the weights multiply the policy loss alone, not the penalty",
        reproduced_by="reference_kl(base=importance_correction(base=grpo),importance_weighted=True)",
    ),
)

engines.register("trl")(Engine(name="trl", tested="1.16", extra="llm", comparisons=COMPARISONS))
