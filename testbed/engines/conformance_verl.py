"""verl's losses: its registered policy losses and penalties, called with its own configuration objects."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines


def _loss(
    name: str, *, policy: dict[str, Any] | None = None, rollout: dict[str, Any] | None = None, **settings: Any
) -> EngineLoss:
    """A registered policy loss plus entropy and reference penalty, put together as verl's actor does."""
    return deferred(lambda: _actor_loss(name, policy or {}, rollout, settings))


def _actor_loss(
    name: str, policy: dict[str, Any], rollout: dict[str, Any] | None, settings: dict[str, Any]
) -> EngineLoss:
    with warnings.catch_warnings():
        # What verl's own dependencies deprecate is not the reader's concern.
        warnings.simplefilter("ignore")
        from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty
        from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
        from verl.workers.config import ActorConfig, PolicyLossConfig

    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=PolicyLossConfig(loss_mode=name, **policy),
        **settings,
    )
    config.global_batch_info["loss_scale_factor"] = config.loss_scale_factor

    def mean(values: Tensor, batch: TokenBatch) -> Tensor:
        total: Tensor = agg_loss(
            loss_mat=values, loss_mask=batch.mask, loss_agg_mode=config.loss_agg_mode, **config.global_batch_info
        )
        return total

    def loss(batch: TokenBatch) -> Tensor:
        weights = None
        if rollout is not None:
            assert batch.sampler_log_probs is not None
            difference = batch.old_log_probs - batch.sampler_log_probs
            weights, _ = compute_rollout_correction_weights(difference, batch.mask, **rollout)
        total: Tensor
        total, _ = get_policy_loss_fn(name)(
            old_log_prob=batch.old_log_probs,
            log_prob=batch.log_probs,
            # Some losses write into what they are given.
            advantages=batch.advantages.clone(),
            response_mask=batch.mask,
            loss_agg_mode=config.loss_agg_mode,
            config=config,
            rollout_is_weights=weights,
        )
        if config.entropy_coeff:
            assert batch.entropies is not None
            total = total - config.entropy_coeff * mean(batch.entropies, batch)
        if config.use_kl_loss:
            penalty = kl_penalty(
                logprob=batch.log_probs, ref_logprob=batch.ref_log_probs, kl_penalty=config.kl_loss_type
            )
            total = total + config.kl_loss_coef * mean(penalty, batch)
        return total

    return loss


TIGHT: dict[str, Any] = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
SEQUENCES: dict[str, Any] = {"loss_agg_mode": "seq-mean-token-mean"}
COMPARISONS = (
    Comparison(objective="ppo(dual_clip=3.0)", setting="vanilla", loss=_loss("vanilla")),
    Comparison(
        objective="ppo",
        setting="vanilla",
        loss=_loss("vanilla"),
        because="vanilla always dual-clips, at 3 by default",
        reproduced_by="ppo(dual_clip=3.0)",
    ),
    Comparison(
        objective="ppo(dual_clip=3.0,clip_low=0.1,clip_high=0.1)",
        setting="vanilla, clip_ratio=0.1",
        loss=_loss("vanilla", clip_ratio=0.1),
        because="clip_ratio alone has no effect: clip_ratio_low and clip_ratio_high default to 0.2 and win",
        reproduced_by="ppo(dual_clip=3.0)",
    ),
    Comparison(
        objective="grpo(dual_clip=3.0)", setting="vanilla, seq-mean-token-mean", loss=_loss("vanilla", **SEQUENCES)
    ),
    Comparison(
        objective="dr_grpo(dual_clip=3.0)",
        setting="vanilla, seq-mean-token-sum-norm",
        loss=_loss("vanilla", loss_agg_mode="seq-mean-token-sum-norm"),
    ),
    Comparison(
        objective="dr_grpo(dual_clip=3.0,max_length=256)",
        setting="vanilla, seq-mean-token-sum-norm, loss_scale_factor=256",
        loss=_loss("vanilla", loss_agg_mode="seq-mean-token-sum-norm", loss_scale_factor=256),
    ),
    Comparison(
        objective="dapo(dual_clip=10.0)",
        setting="vanilla, clip_ratio_high=0.28, clip_ratio_c=10",
        loss=_loss("vanilla", clip_ratio_high=0.28, clip_ratio_c=10.0),
    ),
    Comparison(objective="reinforce", setting="gpg", loss=_loss("gpg")),
    Comparison(
        objective="gspo_token",
        setting="gspo, seq-mean-token-mean, clip ratios 3e-4 and 4e-4",
        loss=_loss("gspo", **SEQUENCES, **TIGHT),
    ),
    Comparison(
        objective="gspo",
        setting="gspo, seq-mean-token-mean, clip ratios 3e-4 and 4e-4",
        loss=_loss("gspo", **SEQUENCES, **TIGHT),
    ),
    Comparison(
        objective="gspo_token",
        setting="gspo, seq-mean-token-mean, clip ratios 3e-4 and 4e-4, an advantage per token",
        loss=_loss("gspo", **SEQUENCES, **TIGHT),
        token_advantages=True,
    ),
    Comparison(
        objective="gspo",
        setting="gspo, seq-mean-token-mean, clip ratios 3e-4 and 4e-4, an advantage per token",
        loss=_loss("gspo", **SEQUENCES, **TIGHT),
        because="it is the token form, in which a token's gradient has its own advantage and not the mean of all",
        reproduced_by="gspo_token",
        token_advantages=True,
    ),
    Comparison(
        objective="gspo",
        setting="gspo (token-mean, the default), clip ratios 3e-4 and 4e-4",
        loss=_loss("gspo", **TIGHT),
        because="the default mean is over tokens, so that a long response weighs more",
        reproduced_by="gspo(reduction=token_mean)",
    ),
    Comparison(
        objective="luspo",
        setting="gspo, seq-mean-token-sum, clip ratios 2e-3 and 2.5e-3",
        loss=_loss("gspo", loss_agg_mode="seq-mean-token-sum", clip_ratio_low=2e-3, clip_ratio_high=2.5e-3),
    ),
    Comparison(objective="sapo", setting="sapo", loss=_loss("sapo", **SEQUENCES)),
    Comparison(
        objective="sapo(reduction=token_mean)",
        setting="sapo, token-mean",
        loss=_loss("sapo"),
        because="the configured mean is ignored, it is always seq-mean-token-mean",
        reproduced_by="sapo",
    ),
    Comparison(objective="cispo(clip_low=0.2)", setting="cispo", loss=_loss("cispo")),
    Comparison(
        objective="cispo",
        setting="cispo",
        loss=_loss("cispo"),
        because="the weight has a lower bound of 1 - clip_ratio_low as well",
        reproduced_by="cispo(clip_low=0.2)",
    ),
    Comparison(
        objective="gmpo",
        setting="geo_mean, clip ratios 0.4",
        loss=_loss("geo_mean", clip_ratio_low=0.4, clip_ratio_high=0.4),
    ),
    Comparison(
        # With every candidate drawn, the draw is not a matter of luck.
        objective="clip_cov(fraction=1.0,clip_low=0.2,clip_high=0.2)",
        setting="clip_cov, clip_cov_ratio=1",
        loss=_loss("clip_cov", policy={"clip_cov_ratio": 1.0}),
    ),
    Comparison(
        objective="clip_cov(fraction=1.0)",
        setting="clip_cov, clip_cov_ratio=1",
        loss=_loss("clip_cov", policy={"clip_cov_ratio": 1.0}),
        because="ratios are clipped as in PPO, and clipped tokens are no candidates",
        reproduced_by="clip_cov(fraction=1.0,clip_low=0.2,clip_high=0.2)",
    ),
    Comparison(
        objective="kl_cov(fraction=0.2)",
        setting="kl_cov, kl_cov_ratio=0.2, ppo_kl_coef=1",
        loss=_loss("kl_cov", policy={"kl_cov_ratio": 0.2, "ppo_kl_coef": 1.0}),
    ),
    Comparison(
        objective="kl_cov(fraction=0.2)",
        setting="kl_cov, kl_cov_ratio=0.2",
        loss=_loss("kl_cov", policy={"kl_cov_ratio": 0.2}),
        because="the configuration's penalty weight is 0.1; the function's own default of 1 is never used",
        reproduced_by="kl_cov(fraction=0.2,penalty=0.1)",
    ),
    Comparison(
        objective="kl_cov",
        setting="kl_cov, ppo_kl_coef=1",
        loss=_loss("kl_cov", policy={"ppo_kl_coef": 1.0}),
        because="at least one token is penalised, even where the fraction (2e-4) of 64 tokens is none",
        reproduced_by="kl_cov(fraction=0.015625)",
    ),
    Comparison(
        objective="dppo(threshold=0.2,ratio_max=3.0)",
        setting="dppo_tv",
        loss=_loss("dppo_tv"),
    ),
    Comparison(
        objective="dppo",
        setting="dppo_tv",
        loss=_loss("dppo_tv"),
        because="the threshold is clip_ratio_low and _high (0.2), and ratios are truncated at clip_ratio_c (3)",
        reproduced_by="dppo(threshold=0.2,ratio_max=3.0)",
    ),
    Comparison(
        objective='dppo(divergence="kl",threshold=0.05,ratio_max=20.0)',
        setting="dppo_kl, clip ratios 0.05, clip_ratio_c=20",
        loss=_loss("dppo_kl", clip_ratio_low=0.05, clip_ratio_high=0.05, clip_ratio_c=20.0),
    ),
    Comparison(
        objective="reference_kl(base=ppo(dual_clip=3.0),kind=k1)",
        setting="vanilla, kl_loss_type=kl, kl_loss_coef=0.04",
        loss=_loss("vanilla", use_kl_loss=True, kl_loss_type="kl", kl_loss_coef=0.04),
    ),
    Comparison(
        objective="reference_kl(base=ppo(dual_clip=3.0),kind=k2)",
        setting="vanilla, kl_loss_type=mse, kl_loss_coef=0.04",
        loss=_loss("vanilla", use_kl_loss=True, kl_loss_type="mse", kl_loss_coef=0.04),
    ),
    Comparison(
        objective="reference_kl(base=ppo(dual_clip=3.0))",
        setting="vanilla, kl_loss_type=low_var_kl, kl_loss_coef=0.04",
        loss=_loss("vanilla", use_kl_loss=True, kl_loss_type="low_var_kl", kl_loss_coef=0.04),
        because="the estimate of a token is clamped at 10",
        reproduced_by="reference_kl(base=ppo(dual_clip=3.0),estimate_max=10.0)",
    ),
    Comparison(
        objective="entropy_bonus(base=grpo(dual_clip=3.0))",
        setting="vanilla, seq-mean-token-mean, entropy_coeff=0.01",
        loss=_loss("vanilla", **SEQUENCES, entropy_coeff=0.01),
    ),
    Comparison(
        objective="importance_correction(base=ppo(dual_clip=3.0),level=token,mode=truncate)",
        setting="vanilla, rollout_is=token, rollout_is_threshold=2.0",
        loss=_loss("vanilla", rollout={"rollout_is": "token", "rollout_is_threshold": 2.0}),
    ),
    Comparison(
        objective="importance_correction(base=ppo(dual_clip=3.0),level=token,mode=mask,floor=0.5,cap=5.0)",
        setting="vanilla, rollout_is=token, rollout_is_threshold=0.5_5",
        loss=_loss("vanilla", rollout={"rollout_is": "token", "rollout_is_threshold": "0.5_5"}),
    ),
    Comparison(
        objective="importance_correction(base=ppo(dual_clip=3.0),level=sequence,mode=truncate)",
        setting="vanilla, rollout_is=sequence, rollout_is_threshold=2.0",
        loss=_loss("vanilla", rollout={"rollout_is": "sequence", "rollout_is_threshold": 2.0}),
    ),
    Comparison(
        objective="importance_correction(base=ppo(dual_clip=3.0),level=sequence,mode=mask,floor=0.5,cap=5.0)",
        setting="vanilla, rollout_is=sequence, rollout_is_threshold=0.5_5",
        loss=_loss("vanilla", rollout={"rollout_is": "sequence", "rollout_is_threshold": "0.5_5"}),
    ),
)

engines.register("verl")(Engine(name="verl", tested="0.9", extra="verl", comparisons=COMPARISONS))
