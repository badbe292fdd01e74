"""ms-swift's losses: `GRPOTrainer._compute_loss_and_metrics`, on a trainer without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines
from testbed.engines.importing import import_alone

MAX_LENGTH = 256
"""The maximum completion length that dr_grpo divides by."""
_UNUSED = (
    *(
        f"swift.{part}"
        for part in ("dataset", "rewards", "rl_core", "sequence_parallel", "template", "trainers", "utils")
    ),
    *(f"swift.rlhf_trainers.{part}" for part in ("arguments", "gkd_helpers", "rollout_mixin", "utils")),
)
_DEFAULTS: dict[str, Any] = {
    "beta": 0.0,
    "importance_sampling_level": "token",
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "tau_pos": 1.0,
    "tau_neg": 1.05,
    "real_tau": 0.5,
    "off_policy_sequence_mask_delta": None,
    "top_entropy_quantile": 1.0,
    "delta": None,
    "fipo_decay_rate": 32.0,
    "fipo_clip_range": 0.2,
    "fipo_clip_high_only": True,
    "fipo_safety_threshold": 4.0,
}


def _loss(loss_type: str, **settings: Any) -> EngineLoss:
    return deferred(lambda: _trainer_loss({**_DEFAULTS, **settings, "loss_type": loss_type}))


def _trainer_class() -> Any:
    """The trainer; it takes the constructor of TRL's out of TRL, which is put back."""
    from trl import GRPOTrainer

    taken = {name: vars(GRPOTrainer)[name] for name in ("__init__", "log") if name in vars(GRPOTrainer)}
    try:
        return import_alone("swift.rlhf_trainers.grpo_trainer", stand_ins=_UNUSED).GRPOTrainer
    finally:
        for name, method in taken.items():
            setattr(GRPOTrainer, name, method)


def _trainer_loss(settings: dict[str, Any]) -> EngineLoss:
    entropies = settings["top_entropy_quantile"] < 1
    trainer = object.__new__(_trainer_class())
    attributes = {
        **settings,
        "model": SimpleNamespace(training=True),
        "args": SimpleNamespace(
            log_entropy=False,
            gradient_accumulation_steps=1,
            top_entropy_quantile=settings["top_entropy_quantile"],
            delta=settings["delta"],
        ),
        "accelerator": SimpleNamespace(num_processes=1, gather_for_metrics=lambda values: values.reshape(-1)),
        "compute_entropy": entropies,
        "overlong_filter": False,
        "kl_in_reward": False,
        "rollout_importance_sampling_mode": None,
        "log_rollout_offpolicy_metrics": False,
        "disable_rollout_importance_sampling": True,
        "_has_teacher": False,
        "sdar_loss_coef": 0.0,
        "chord_sft_iterator": None,
        "model_accepts_loss_kwargs": False,
        "compute_loss_func": None,
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": MAX_LENGTH,
        "fipo_gamma": 2 ** (-1 / settings["fipo_decay_rate"]),
    }
    for name, value in attributes.items():
        object.__setattr__(trainer, name, value)

    def loss(batch: TokenBatch) -> Tensor:
        # All responses are those of one prompt.
        trainer.num_generations = batch.mask.shape[0]
        trainer._get_per_token_logps_and_entropies = lambda *arguments, **keywords: (
            batch.log_probs,
            batch.entropies if entropies else None,
        )
        inputs = SimpleNamespace(
            completion_mask=batch.mask,
            truncated_mask=None,
            advantages=batch.advantages,
            old_per_token_logps=batch.old_log_probs,
            ref_per_token_logps=batch.ref_log_probs,
            rollout_per_token_logps=batch.sampler_log_probs,
            teacher_per_token_logps=None,
            num_items_in_batch=batch.mask.sum(),
        )
        result: Tensor
        result, _ = trainer._compute_loss_and_metrics(None, {}, inputs)
        return result

    return loss


TIGHT: dict[str, Any] = {"epsilon_low": 3e-4, "epsilon_high": 4e-4}
COMPARISONS = (
    Comparison(objective="grpo", setting="grpo", loss=_loss("grpo")),
    Comparison(objective="ppo", setting="bnpo", loss=_loss("bnpo")),
    Comparison(objective="ppo(dual_clip=3.0)", setting="bnpo, delta=3", loss=_loss("bnpo", delta=3.0)),
    Comparison(objective="dapo", setting="dapo, epsilon_high=0.28", loss=_loss("dapo", epsilon_high=0.28)),
    Comparison(
        objective=f"dr_grpo(max_length={MAX_LENGTH})",
        setting=f"dr_grpo, max_completion_length={MAX_LENGTH}",
        loss=_loss("dr_grpo"),
    ),
    Comparison(
        objective="gspo",
        setting="grpo, sequence level, epsilons 3e-4 and 4e-4",
        loss=_loss("grpo", importance_sampling_level="sequence", **TIGHT),
    ),
    Comparison(
        objective="gspo_token",
        setting="grpo, sequence_token level, epsilons 3e-4 and 4e-4",
        loss=_loss("grpo", importance_sampling_level="sequence_token", **TIGHT),
    ),
    Comparison(
        objective="gspo_token",
        setting="grpo, sequence_token level, epsilons 3e-4 and 4e-4, an advantage per token",
        loss=_loss("grpo", importance_sampling_level="sequence_token", **TIGHT),
        token_advantages=True,
    ),
    Comparison(
        objective="cispo",
        setting="cispo",
        loss=_loss("cispo"),
        because="epsilon_high is an absolute ceiling of the weight and falls back to epsilon = 0.2",
        reproduced_by="cispo(clip_high=-0.8)",
    ),
    Comparison(
        objective="cispo(clip_high=4.0)", setting="cispo, epsilon_high=5", loss=_loss("cispo", epsilon_high=5.0)
    ),
    Comparison(objective="sapo", setting="sapo", loss=_loss("sapo")),
    Comparison(objective="real", setting="real", loss=_loss("real")),
    Comparison(
        objective="fipo(dual_clip=None,safety=4.0)",
        setting="fipo, epsilon_high=0.28",
        loss=_loss("fipo", epsilon_high=0.28),
    ),
    Comparison(
        objective="fipo",
        setting="fipo, epsilon_high=0.28",
        loss=_loss("fipo", epsilon_high=0.28),
        because="there is neither a dual clip nor an outlier that the sum of changes leaves out, and punished tokens "
        "are not amplified beyond a ratio of 4, not 10",
        reproduced_by="fipo(dual_clip=None,safety=4.0)",
    ),
    Comparison(
        objective="top_entropy(base=grpo)",
        setting="grpo, top_entropy_quantile=0.2",
        loss=_loss("grpo", top_entropy_quantile=0.2),
    ),
    Comparison(
        objective="off_policy_mask(base=grpo)",
        setting="grpo, off_policy_sequence_mask_delta=0.5",
        loss=_loss("grpo", off_policy_sequence_mask_delta=0.5),
    ),
    Comparison(
        objective="reference_kl",
        setting="grpo, beta=0.04",
        loss=_loss("grpo", beta=0.04),
        because="the estimate of a token is clamped at 10",
        reproduced_by="reference_kl(estimate_max=10.0)",
    ),
)

engines.register("ms-swift")(Engine(name="ms-swift", module="swift", tested="4.6", comparisons=COMPARISONS))
