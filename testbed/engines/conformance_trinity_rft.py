"""Trinity-RFT's losses: its policy loss classes, with their default arguments unless a setting says otherwise."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.conformance import Comparison, Engine, EngineLoss, deferred, engines
from testbed.engines.importing import import_alone


def _loss(module: str, name: str, **settings: Any) -> EngineLoss:
    def build() -> EngineLoss:
        chosen = getattr(import_alone(f"trinity.algorithm.policy_loss_fn.{module}"), name)
        function = chosen(**{**chosen.default_args(), **settings})

        def loss(batch: TokenBatch) -> Tensor:
            result: Tensor
            result, _ = function(
                batch.log_probs,
                old_logprob=batch.old_log_probs,
                action_mask=batch.mask.to(batch.log_probs.dtype),
                advantages=batch.advantages,
            )
            return result

        return loss

    return deferred(build)


def _rec(**settings: Any) -> EngineLoss:
    return _loss("rec_policy_loss", "RECPolicyLossFn", **settings)


COMPARISONS = (
    Comparison(
        objective="ppo(dual_clip=3.0)", setting="ppo, clip_range=0.2", loss=_loss("ppo_policy_loss", "PPOPolicyLossFn")
    ),
    Comparison(
        objective="ppo",
        setting="ppo, clip_range=0.2",
        loss=_loss("ppo_policy_loss", "PPOPolicyLossFn"),
        because="clip_ratio_c = 3 caps the loss of negative tokens by default",
        reproduced_by="ppo(dual_clip=3.0)",
    ),
    Comparison(
        objective="off_policy_mask(base=ppo(dual_clip=3.0),threshold=0.1)",
        setting="ppo, enable_sequence_masking",
        loss=_loss("ppo_policy_loss", "PPOPolicyLossFn", enable_sequence_masking=True),
        because="the old policy stands where the sampler's own probabilities belong",
    ),
    Comparison(objective="gspo_token", setting="gspo", loss=_loss("gspo_policy_loss", "GSPOLossFn")),
    Comparison(
        objective="cispo(clip_low=1.0,clip_high=0.28)",
        setting="cispo",
        loss=_loss("cispo_policy_loss", "CISPOPolicyLossFn"),
    ),
    Comparison(
        objective="sapo(reduction=token_mean)",
        setting="sapo",
        loss=_loss("sapo_policy_loss", "SAPOPolicyLossFn"),
        because="the gate itself is the weight of log p, under a stop-gradient: about 2 at ratio 1 where the paper's "
        "derivative weighs 1",
    ),
    Comparison(
        objective="topr",
        setting="topr",
        loss=_loss("topr_policy_loss", "TOPRPolicyLossFn"),
        because="the ratio is that of the token, not of the response, and the mean is over tokens",
    ),
    Comparison(objective="opmd", setting="opmd", loss=_loss("opmd_policy_loss", "OPMDPolicyLossFn")),
    Comparison(objective='rec(clip="none")', setting="rec, clip_mode=none", loss=_rec(clip_mode="none")),
    Comparison(objective='rec(clip="one_side")', setting="rec, clip_mode=one-side", loss=_rec(clip_mode="one-side")),
    Comparison(
        objective='rec(clip="one_side",weight="ratio")',
        setting="rec, clip_mode=one-side, weight=importance_sampling",
        loss=_rec(clip_mode="one-side", weight="importance_sampling"),
    ),
    Comparison(objective='rec(clip="two_side")', setting="rec, clip_mode=two-side", loss=_rec(clip_mode="two-side")),
    Comparison(
        objective='rec(clip="ring",ring_low=0.6,ring_high=2.0)',
        setting="rec, clip_mode=ring, epsilons' 0.6 and 2",
        loss=_rec(clip_mode="ring", epsilon_low_prime=0.6, epsilon_high_prime=2.0),
    ),
    Comparison(
        objective='rec(clip="none",weight="advantage")',
        setting="rec, clip_mode=none, weight=advantage",
        loss=_rec(clip_mode="none", weight="advantage"),
    ),
)

engines.register("trinity-rft")(
    # Its counts have 1e-8 added to them, which a response of one token feels.
    Engine(name="trinity-rft", module="trinity", tested="0.6", comparisons=COMPARISONS, agreement=1e-7)
)
