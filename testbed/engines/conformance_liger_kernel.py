"""Liger-Kernel's losses: the static `ppo_loss_fn` under its fused linear layer, which TRL and ms-swift call as well."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines
from testbed.engines.importing import import_alone

MAX_LENGTH = 256
"""The maximum completion length that dr_grpo divides by."""


def _loss(loss_type: str, *, sampler_cap: float | None = None, beta: float = 0.0, **settings: Any) -> EngineLoss:
    def build() -> EngineLoss:
        module = import_alone("liger_kernel.chunked_loss.grpo_loss")
        function = module.LigerFusedLinearGRPOFunction.ppo_loss_fn

        def loss(batch: TokenBatch) -> Tensor:
            mask = batch.mask.to(batch.log_probs.dtype)
            weights = None
            if sampler_cap is not None:
                assert batch.sampler_log_probs is not None
                weights = (batch.old_log_probs - batch.sampler_log_probs).exp().clamp(max=sampler_cap)
            result: Tensor
            result, _ = function(
                per_token_logps=batch.log_probs,
                attention_mask=mask,
                advantages=batch.advantages[:, 0],
                full_attention_mask=mask,
                ref_per_token_logps=batch.ref_log_probs if beta else None,
                old_per_token_logps=batch.old_log_probs,
                beta=beta,
                loss_type=loss_type,
                max_completion_length=MAX_LENGTH,
                vllm_is_ratio=weights,
                **settings,
            )
            return result

        return loss

    return deferred(build)


TIGHT: dict[str, Any] = {"epsilon_low": 3e-4, "epsilon_high": 4e-4}
COMPARISONS = (
    Comparison(objective="grpo", setting="grpo", loss=_loss("grpo")),
    Comparison(objective="ppo", setting="bnpo", loss=_loss("bnpo")),
    Comparison(objective="dapo", setting="dapo, epsilon_high=0.28", loss=_loss("dapo", epsilon_high=0.28)),
    Comparison(
        objective="dapo",
        setting="dapo",
        loss=_loss("dapo"),
        because="epsilon_high is 0.2 by default",
        reproduced_by="dapo(clip_high=0.2)",
    ),
    Comparison(
        objective=f"dr_grpo(max_length={MAX_LENGTH})",
        setting=f"dr_grpo, max_completion_length={MAX_LENGTH}",
        loss=_loss("dr_grpo"),
    ),
    Comparison(objective="ppo(dual_clip=3.0)", setting="bnpo, delta=3", loss=_loss("bnpo", delta=3.0)),
    Comparison(
        objective="gspo",
        setting="grpo, sequence level, epsilons 3e-4 and 4e-4",
        loss=_loss("grpo", importance_sampling_level="sequence", **TIGHT),
    ),
    Comparison(
        objective="luspo",
        setting="luspo, sequence level, epsilons 2e-3 and 2.5e-3",
        loss=_loss("luspo", importance_sampling_level="sequence", epsilon_low=2e-3, epsilon_high=2.5e-3),
    ),
    Comparison(objective="cispo", setting="cispo, epsilon_high=1.2", loss=_loss("cispo", epsilon_high=1.2)),
    Comparison(
        objective="cispo",
        setting="cispo",
        loss=_loss("cispo"),
        because="epsilon_high is an absolute ceiling of the weight, 0.2 by default",
        reproduced_by="cispo(clip_high=-0.8)",
    ),
    Comparison(objective="sapo", setting="sapo", loss=_loss("sapo")),
    Comparison(objective="vespo", setting="vespo", loss=_loss("vespo")),
    Comparison(objective="reference_kl", setting="grpo, beta=0.04", loss=_loss("grpo", beta=0.04)),
    Comparison(
        objective="reference_kl(importance_weighted=True)",
        setting="grpo, beta=0.04, use_bias_correction_kl",
        loss=_loss("grpo", beta=0.04, use_bias_correction_kl=True),
    ),
    Comparison(
        objective="importance_correction(base=grpo)",
        setting="grpo, vllm_is_ratio of at most 2",
        loss=_loss("grpo", sampler_cap=2.0),
    ),
)

engines.register("liger-kernel")(
    Engine(name="liger-kernel", module="liger_kernel", tested="0.8", comparisons=COMPARISONS)
)
