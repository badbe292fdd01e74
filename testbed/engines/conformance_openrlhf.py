"""OpenRLHF's losses: `PolicyLoss` of openrlhf/models/loss.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines
from testbed.engines.importing import import_alone


def _loss(**settings: Any) -> EngineLoss:
    def build() -> EngineLoss:
        module = import_alone("openrlhf.models.loss", stand_ins=("deepspeed", "flash_attn", "ray"))
        function = module.PolicyLoss(**settings)

        def loss(batch: TokenBatch) -> Tensor:
            result: Tensor = function(
                batch.log_probs,
                batch.old_log_probs,
                batch.advantages,
                action_mask=batch.mask.to(batch.log_probs.dtype),
                rollout_log_probs=batch.sampler_log_probs,
            )[0]
            return result

        return loss

    return deferred(build)


TIGHT: dict[str, Any] = {"clip_eps_low": 3e-4, "clip_eps_high": 4e-4}
COMPARISONS = (
    Comparison(objective="ppo", setting="ppo", loss=_loss()),
    Comparison(objective="grpo", setting="ppo, token_level_loss=False", loss=_loss(token_level_loss=False)),
    Comparison(objective="dapo", setting="ppo, clip_eps_high=0.28", loss=_loss(clip_eps_high=0.28)),
    Comparison(objective="ppo(dual_clip=3.0)", setting="ppo, dual_clip=3", loss=_loss(dual_clip=3.0)),
    Comparison(
        objective="gspo",
        setting="gspo, clip_eps 3e-4 and 4e-4",
        loss=_loss(policy_loss_type="gspo", **TIGHT),
    ),
    Comparison(
        objective="gspo",
        setting="gspo",
        loss=_loss(policy_loss_type="gspo"),
        because="the offsets are those of token ratios, 0.2, by default",
        reproduced_by="gspo(clip_low=0.2,clip_high=0.2)",
    ),
    Comparison(
        objective="importance_correction(base=ppo,mode=mask,floor=0.5,cap=5.0)",
        setting="ppo, is_correction_level=token",
        loss=_loss(is_correction_level="token"),
    ),
    Comparison(
        objective="importance_correction(base=ppo,mode=truncate,floor=0.5,cap=5.0)",
        setting="ppo, is_correction_level=token, is_correction_mode=clip",
        loss=_loss(is_correction_level="token", is_correction_mode="clip"),
    ),
    Comparison(
        objective='importance_correction(base=ppo,mode=mask,level="geometric",weight="token",floor=0.5,cap=5.0)',
        setting="ppo, is_correction_level=seq",
        loss=_loss(is_correction_level="seq"),
    ),
    Comparison(
        objective='importance_correction(base=ppo,mode=mask,cap=inf,kl_max=0.05,kl_direction="sampler")',
        setting="ppo, is_correction_gating=binary_kl, threshold 0.05",
        loss=_loss(is_correction_level="token", is_correction_gating="binary_kl", is_correction_threshold=(0.0, 0.05)),
    ),
)

engines.register("openrlhf")(
    # A response's count has 1e-8 added to it.
    Engine(name="openrlhf", tested="0.11", comparisons=COMPARISONS, agreement=1e-7)
)
