"""Log-probabilities and entropies of response tokens without a matrix of logits."""

from __future__ import annotations

import functools
import types
from typing import Any

from testbed.engines.trl.installed import FusedCausalLMOutput
from testbed.token_statistics import token_statistics_from_hidden

__all__ = ["use_own_head"]

_SCALED = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
)


def use_own_head(model: Any, temperature: float) -> None:
    """Let `model(…, fused_lm_head=True)` score response positions with `token_statistics_from_hidden`.

    TRL's own head stays where logits are scaled or capped on the way, where the head's weight is spread over processes,
    and for the pass that also asks a mixture of experts for its auxiliary loss.

    Args:
        model: a causal language model, or an adapter around one.
        temperature: of the sampling; logits are divided by it.
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    config = model.config.get_text_config()
    if config is not model.config or any(getattr(config, name, None) is not None for name in _SCALED):
        return
    trl_forward = model.forward

    # generate() reads the signature to see which arguments a model knows.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *arguments: Any, fused_lm_head: bool = False, labels: Any = None, **settings: Any) -> Any:
        head = self.get_output_embeddings()
        # The marks of FSDP2 and of DeepSpeed's ZeRO-3.
        spread = hasattr(head.weight, "full_tensor") or hasattr(head.weight, "ds_id")
        if not fused_lm_head or labels is None or settings.get("output_router_logits") or spread:
            return trl_forward(*arguments, fused_lm_head=fused_lm_head, labels=labels, **settings)
        states = self.base_model(*arguments, **{**settings, "use_cache": False}).last_hidden_state[:, :-1]
        labels = labels[:, 1:]
        scored = labels != -100
        results = token_statistics_from_hidden(
            states[scored], head.weight, labels[scored], temperature, bias=head.bias, check=False
        )
        log_probs, entropies = (value.new_zeros(scored.shape).masked_scatter(scored, value) for value in results)
        return FusedCausalLMOutput(log_probs=log_probs, entropy=entropies, label_mask=scored)

    model.forward = types.MethodType(forward, model)
