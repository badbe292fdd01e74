"""AReaL's losses: `ppo_actor_loss_fn` and `sapo_loss_fn`, and the masking it calls M2PO."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines
from testbed.engines.importing import import_alone

_UNUSED = ("areal.api", "areal.utils.data")
_UNUSED_BY_THE_ACTOR = (*_UNUSED, "areal.infra", "aiohttp", "numba", "orjson")


def _ppo(*, m2_threshold: float | None = None, eps_clip: float = 0.2, **settings: Any) -> EngineLoss:
    def build() -> EngineLoss:
        function = import_alone("areal.utils.functional.functional", stand_ins=_UNUSED).ppo_actor_loss_fn
        mask_of = None
        if m2_threshold is not None:
            actor = import_alone("areal.trainer.ppo.actor", stand_ins=_UNUSED_BY_THE_ACTOR)
            mask_of = actor._apply_m2po_masking

        def loss(batch: TokenBatch) -> Tensor:
            mask = batch.mask
            sampler = batch.sampler_log_probs
            if mask_of is not None:
                mask = mask_of(sampler, batch.old_log_probs, mask, m2_threshold)
            result: Tensor
            result, _ = function(
                logprobs=batch.log_probs,
                proximal_logprobs=batch.old_log_probs,
                old_logprobs=batch.old_log_probs if sampler is None else sampler,
                advantages=batch.advantages,
                eps_clip=eps_clip,
                loss_mask=mask,
                **settings,
            )
            return result

        return loss

    return deferred(build)


def _sapo() -> EngineLoss:
    def build() -> EngineLoss:
        function = import_alone("areal.utils.functional.functional", stand_ins=_UNUSED).sapo_loss_fn

        def loss(batch: TokenBatch) -> Tensor:
            result: Tensor
            result, _ = function(
                logprobs=batch.log_probs,
                old_logprobs=batch.old_log_probs,
                advantages=batch.advantages,
                tau_pos=1.0,
                tau_neg=1.05,
                loss_mask=batch.mask,
            )
            return result

        return loss

    return deferred(build)


COMPARISONS = (
    Comparison(objective="ppo", setting="ppo", loss=_ppo()),
    Comparison(objective="dapo", setting="ppo, eps_clip_higher=0.28", loss=_ppo(eps_clip_higher=0.28)),
    Comparison(objective="ppo(dual_clip=3.0)", setting="ppo, c_clip=3", loss=_ppo(c_clip=3.0)),
    Comparison(
        objective="gspo",
        setting="ppo, sequence level, eps_clip 3e-4 and 4e-4",
        loss=_ppo(eps_clip=3e-4, eps_clip_higher=4e-4, importance_sampling_level="sequence"),
        because="the mean is over tokens, so that a long response weighs more",
        reproduced_by="gspo(reduction=token_mean)",
    ),
    Comparison(objective="sapo(reduction=token_mean)", setting="sapo", loss=_sapo()),
    Comparison(
        objective="sapo",
        setting="sapo",
        loss=_sapo(),
        because="the mean is over tokens, so that a long response weighs more",
        reproduced_by="sapo(reduction=token_mean)",
    ),
    Comparison(
        objective='m2po(preset="areal")',
        setting="ppo, m2_threshold=0.04",
        loss=_ppo(m2_threshold=0.04),
        because="dropped tokens leave the divisor as well",
    ),
    Comparison(
        objective="m2po",
        setting="ppo, m2_threshold=0.04",
        loss=_ppo(m2_threshold=0.04),
        because="it is another algorithm: the sampler's second moment on all tokens decides which are dropped, not "
        "that of harmful tokens the bounds",
    ),
)

engines.register("areal")(Engine(name="areal", tested="1.0", comparisons=COMPARISONS))
