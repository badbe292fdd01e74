"""SkyRL's losses: its registered policy losses, with the mean that it puts into the advantages beforehand."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines
from testbed.engines.importing import import_alone

MAX_LENGTH = 256
"""The maximum length that seq_mean_token_sum_norm divides by."""


def _loss(function: str, *, nested: dict[str, dict[str, Any]] | None = None, **settings: Any) -> EngineLoss:
    def build() -> EngineLoss:
        module = import_alone("skyrl.backends.skyrl_train.utils.ppo_utils", stand_ins=("ray", "skyrl_gym", "loguru"))
        config = module.AlgorithmConfig(**settings)
        for part, values in (nested or {}).items():
            for name, value in values.items():
                setattr(getattr(config, part), name, value)

        def loss(batch: TokenBatch) -> Tensor:
            mask = batch.mask.to(batch.log_probs.dtype)
            advantages = module.apply_loss_reduction_to_advantages_minibatch(
                batch.advantages, mask, config.loss_reduction, mask.shape[0], MAX_LENGTH
            )
            result: Tensor
            result, _ = getattr(module, function)(
                batch.log_probs, batch.old_log_probs, advantages, config, loss_mask=mask, rollout_logprobs=None
            )
            return result

        return loss

    return deferred(build)


SEQUENCES: dict[str, Any] = {"loss_reduction": "sequence_mean"}
COMPARISONS = (
    Comparison(objective="ppo", setting="regular", loss=_loss("ppo_policy_loss")),
    Comparison(objective="grpo", setting="regular, sequence_mean", loss=_loss("ppo_policy_loss", **SEQUENCES)),
    Comparison(
        objective=f"dr_grpo(max_length={MAX_LENGTH})",
        setting=f"regular, seq_mean_token_sum_norm, max_seq_len={MAX_LENGTH}",
        loss=_loss("ppo_policy_loss", loss_reduction="seq_mean_token_sum_norm"),
    ),
    Comparison(
        objective="ppo(dual_clip=3.0)", setting="dual_clip", loss=_loss("ppo_policy_loss", policy_loss_type="dual_clip")
    ),
    Comparison(
        objective="dapo",
        setting="regular, eps_clip_high=0.28",
        loss=_loss("ppo_policy_loss", eps_clip_high=0.28),
    ),
    Comparison(objective="sapo", setting="sapo, sequence_mean", loss=_loss("sapo_policy_loss", **SEQUENCES)),
    Comparison(
        objective="gspo_token",
        setting="gspo, sequence_mean, eps_clip 3e-4 and 4e-4",
        loss=_loss("gspo_policy_loss", eps_clip_low=3e-4, eps_clip_high=4e-4, **SEQUENCES),
    ),
    Comparison(
        objective="cispo(clip_high=5.0)",
        setting="cispo",
        loss=_loss("compute_policy_loss_cispo"),
        because="cispo_eps_clip_low = 0 raises every weight below 1 to 1",
        reproduced_by="cispo(clip_low=0.0,clip_high=5.0)",
    ),
    Comparison(
        objective="cispo(clip_high=5.0)",
        setting="cispo, cispo_eps_clip_low=1",
        loss=_loss("compute_policy_loss_cispo", nested={"cispo": {"cispo_eps_clip_low": 1.0}}),
    ),
    Comparison(
        objective="bandpo(delta=0.2,reduction=token_mean)",
        setting="dppo, binary_tv",
        loss=_loss("dppo_policy_loss"),
        because="a masked token has no loss, where a clipped one keeps its value; the gradients agree",
    ),
)

engines.register("skyrl")(
    # Ratios pass through float32.
    Engine(name="skyrl", tested="0.3", comparisons=COMPARISONS, agreement=2e-6)
)
