"""Log-probabilities and entropies of response tokens without a matrix of logits."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from testbed.engines.trl.installed import FusedCausalLMOutput
from testbed.engines.trl.shared_prefixes import SharedPrefixes, balance_loss, run_packed
from testbed.token_statistics import token_statistics_from_hidden

__all__ = ["Kappas", "takes_own_head", "use_own_head"]

_SCALED = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
)


class Kappas:
    """κ of the positions that a forward pass scores; TRL's own result has no place for it."""

    def __init__(self) -> None:
        self._noted: list[Tensor] | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody takes what a pass notes."""
        return self._noted is not None

    def note(self, kappas: Tensor) -> None:
        """Add those of a part of the batch, `(B, T)`."""
        if self._noted is not None:
            self._noted.append(kappas)

    def beside(self, score: Callable[[], Any]) -> tuple[Any, Tensor | None]:
        """What a pass gives, log-probabilities `(B, T)` first, and κ `(B, T)`; `None` where the head is TRL's."""
        noted = self._noted = []
        try:
            scored = score()
        finally:
            self._noted = None
        return scored, torch.cat(noted)[:, -scored[0].shape[1] :] if noted else None


def takes_own_head(model: Any) -> bool:
    """Whether a causal language model's logits are the product of its states and its head, and nothing more."""
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    config = model.config.get_text_config()
    return config is model.config and all(getattr(config, name, None) is None for name in _SCALED)


def use_own_head(model: Any, temperature: float, kappas: Kappas, prefixes: SharedPrefixes) -> bool:
    """Let `model(…, fused_lm_head=True)` score response positions with `token_statistics_from_hidden`.

    Returns whether it does, up to what depends on the pass.

    TRL's own head stays where `takes_own_head` says so, where the head's weight is spread over processes, and where a
    mixture of experts is asked for its auxiliary loss on prompts that are not shared.

    Args:
        model: a causal language model, or an adapter around one.
        temperature: of the sampling; logits are divided by it.
        kappas: where κ goes when somebody wants it.
        prefixes: whether prompts that several responses share are run once.
    """
    if not takes_own_head(model):
        return False
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    trl_forward = model.forward

    # generate() reads the signature to see which arguments a model knows.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *arguments: Any, fused_lm_head: bool = False, labels: Any = None, **settings: Any) -> Any:
        head = self.get_output_embeddings()
        # The marks of FSDP2 and of DeepSpeed's ZeRO-3.
        spread = hasattr(head.weight, "full_tensor") or hasattr(head.weight, "ds_id")
        own = fused_lm_head and labels is not None and not spread
        packed = prefixes.packed(labels, settings) if own and not arguments else None
        balanced = settings.get("output_router_logits")
        if not own or (balanced and packed is None):
            return trl_forward(*arguments, fused_lm_head=fused_lm_head, labels=labels, **settings)
        width, auxiliary = labels.shape[1], None
        if packed is None:
            states = self.base_model(*arguments, **{**settings, "use_cache": False}).last_hidden_state[:, :-1]
            labels = labels[:, 1:]
        else:
            outputs = run_packed(self.base_model, packed, output_router_logits=balanced)
            states, labels = packed.states(outputs.last_hidden_state), labels[:, packed.width :]
            if balanced:
                auxiliary = balance_loss(self.config, outputs.router_logits, packed)
        scored = labels != -100
        given = states[scored], head.weight, labels[scored], temperature
        settings = {"bias": head.bias, "check": False, "with_kappas": kappas.wanted}
        results: tuple[Tensor, ...] = token_statistics_from_hidden(*given, **settings)
        # What is left out of labels stands before what is scored.
        whole = functools.partial(torch.nn.functional.pad, pad=(width - 1 - scored.shape[1], 0))
        spread_out = [whole(value.new_zeros(scored.shape).masked_scatter(scored, value)) for value in results]
        if kappas.wanted:
            kappas.note(spread_out[2])
        return FusedCausalLMOutput(
            log_probs=spread_out[0], entropy=spread_out[1], label_mask=whole(scored), aux_loss=auxiliary
        )

    model.forward = types.MethodType(forward, model)
    return True
