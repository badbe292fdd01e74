"""Responses of a group share their prompt: it is run once, and the responses are packed behind it.

Of B responses to N different prompts, N·P + B·R tokens go through the model instead of B·(P+T): all prompts, then all
responses without their last token, which predicts nothing (R = T-1), in one row. Every token keeps the position that it
has in the padded batch. Attention is told apart: prompts attend to themselves, each response to its prompt and itself,
so that neither masks nor scores are more than without sharing. The load of experts is that of the padded batch, where
a prompt counts once per response. Generation reads a prompt once as well, by `models.generation`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.generation import distinct_prompts, generate, is_noisy
from testbed.errors import ConfigError

__all__ = [
    "PackedPrompts",
    "SharedPrefixes",
    "balance_loss",
    "pack",
    "prompt_width",
    "run_packed",
]

ATTENTION = "sdpa_shared_prefixes"
"""The name under which transformers finds the attention of packed prompts; of others it is `sdpa`."""

SAVES_ENOUGH = 0.9
"""Where nobody decided, prompts are shared if at most this part of the tokens is left: packing costs something too."""

_POSITIONAL_LAYERS = ("full_attention", "sliding_attention")
# What some models give their attention beyond queries, keys and values, and what is not done here.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "cache")


def prompt_width(labels: Tensor) -> int:
    """P, columns before the first that is scored in any row of labels `(B, P+T)`; 0 if none is.

    >>> prompt_width(torch.tensor([[-100, -100, 5], [-100, -100, -100]]))
    2
    """
    scored = (labels != -100).any(0)
    return int(scored.int().argmax())


@dataclass(frozen=True, eq=False)
class PackedPrompts:
    """N prompts of P columns and, behind them, B responses of R columns, in one row of N·P + B·R tokens."""

    ids: Tensor
    """int64 `(1, N·P + B·R)`."""
    positions: Tensor
    """int64 `(1, N·P + B·R)`: the column of each token in the padded batch."""
    order: Tensor
    """int64 `(B,)`: the row of each response; those to one prompt stand together."""
    which: Tensor
    """int64 `(B,)`: the prompt of each response, ascending."""
    prompt_mask: Tensor
    """bool `(N, P)`: where a prompt has a token."""
    response_mask: Tensor
    """bool `(B, R)`: where a response has one."""
    counts: Tensor
    """float `(N·P + B·R,)`: how often each token is in the padded batch, 0 for padding."""
    length: int
    """T, tokens of a response; R is T where every token is run, and else T - 1."""
    padded: bool
    """Whether any prompt has padding."""
    blocks: int
    """C, in how many blocks responses attend: B, each with a copy of its prompt's keys and values, or N, all responses
    to a prompt side by side, which needs no copy and has more scores."""
    _masks: dict[int | None, tuple[Tensor | None, Tensor]] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        """P."""
        return self.prompt_mask.shape[1]

    def masks(self, window: int | None = None) -> tuple[Tensor | None, Tensor]:
        """Who attends to whom, bool: `(N, 1, P, P)`, `None` if plainly causal, and `(C, 1, B·R/C, P + B·R/C)`.

        Args:
            window: a token sees itself and the `window` - 1 before it; `None`: all before it.
        """
        if window not in self._masks:
            self._masks[window] = self._made(window)
        return self._masks[window]

    def _made(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        width, (rows, length) = self.width, self.response_mask.shape
        together = rows // self.blocks
        prompt = torch.arange(width, device=self.ids.device)
        response = torch.arange(width, width + length, device=self.ids.device).repeat(together)
        owner = torch.arange(together, device=self.ids.device).repeat_interleave(length)
        # What is padding sees itself: a row that sees nothing has no softmax.
        of_prompts = _seen(prompt, prompt, window) & self.prompt_mask[:, None, None] | _diagonal(prompt)
        to_prompt = _seen(response, prompt, window) & self.prompt_mask[self.which[::together], None, None]
        to_itself = _seen(response, response, window) & (owner[:, None] == owner)
        to_itself = to_itself & self.response_mask.view(self.blocks, 1, 1, -1) | _diagonal(response)
        narrow = window is not None and window < width
        return of_prompts if self.padded or narrow else None, torch.cat([to_prompt, to_itself], dim=-1)

    def states(self, packed: Tensor) -> Tensor:
        """The states that predict the tokens of the responses.

        Args:
            packed: `(1, N·P + B·R, D)`, of the packed tokens.

        Returns:
            `(B, T, D)`: the last of the prompt, then those of the response but its last.
        """
        prompts, responses = self.apart(packed, len(self.which))
        states = torch.cat([prompts[:, -1:].index_select(0, self.which), responses[:, : self.length - 1]], dim=1)
        return states[torch.argsort(self.order)]

    def apart(self, packed: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
        """`(1, N·P + B·R, …)` as `(N, P, …)` and `(blocks, B·R/blocks, …)`."""
        size, rest = len(self.prompt_mask) * self.width, packed.shape[2:]
        length = self.response_mask.numel() // blocks
        return (
            packed[:, :size].reshape(*self.prompt_mask.shape, *rest),
            packed[:, size:].reshape(blocks, length, *rest),
        )


def _seen(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Whether a token may look at another by their positions alone."""
    distance = queries[:, None] - keys
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _diagonal(positions: Tensor) -> Tensor:
    return torch.eye(len(positions), dtype=torch.bool, device=positions.device)


def pack(ids: Tensor, mask: Tensor, width: int, every_token: bool = False) -> PackedPrompts:
    """Prompts and responses of a padded batch, each prompt once.

    Args:
        ids: int64 `(B, P+T)`, prompts padded on the left and responses on the right.
        mask: where there is a token, `(B, P+T)`.
        width: P ≥ 1.
        every_token: run the last token of a response too, which predicts nothing but counts among an expert's tokens.

    >>> packed = pack(torch.tensor([[5, 6, 1, 2], [5, 6, 3, 4]]), torch.ones(2, 4), 2)
    >>> packed.ids.tolist(), packed.positions.tolist()
    ([[5, 6, 1, 3]], [[0, 1, 2, 2]])
    """
    mask = mask.bool()
    end = ids.shape[1] if every_token else ids.shape[1] - 1
    first, which = distinct_prompts(ids[:, :width], mask[:, :width])
    order = torch.argsort(which, stable=True)
    prompts, responses = slice(0, width), slice(width, end)
    prompt_mask, response_mask = mask[first, prompts], mask[order, responses]
    place = torch.arange(end, device=ids.device)
    uses = torch.bincount(which, minlength=len(first))
    size = len(ids) // len(first)
    # All responses to a prompt side by side have size·R·(P + size·R) scores, at most twice as many as one by one.
    together = bool((uses == size).all()) and size * (end - width) <= width
    return PackedPrompts(
        ids=_row(ids[first, prompts], ids[order, responses]).unsqueeze(0),
        positions=_row(place[prompts].expand(len(first), -1), place[responses].expand(len(ids), -1)).unsqueeze(0),
        order=order,
        which=which[order],
        prompt_mask=prompt_mask,
        response_mask=response_mask,
        counts=_row(prompt_mask * uses.unsqueeze(1), response_mask).float(),
        length=ids.shape[1] - width,
        padded=not bool(prompt_mask.all()),
        blocks=len(first) if together else len(ids),
    )


def _row(prompts: Tensor, responses: Tensor) -> Tensor:
    return torch.cat([prompts.reshape(-1), responses.reshape(-1)])


class SharedPrefixes:
    """Whether a model's prompts are run once per group, and the model that does it.

    Args:
        model: a causal language model of transformers, or an adapter around one.
        asked: true: always; `None`: where it pays and nothing speaks against it; false: never.
        obstacle: what speaks against it beyond the model itself; empty: nothing known.

    Raises:
        ConfigError: it was asked for and cannot be.
    """

    def __init__(self, model: Any, asked: bool | None, obstacle: str = "") -> None:
        self._asked = asked
        self._generates = asked is not False and not obstacle
        if asked is not False:
            obstacle = obstacle or _obstacle(model)
        if asked and obstacle:
            raise ConfigError(f"shared_prefixes is on, and {obstacle}; leave shared_prefixes out or switch it off")
        self.enabled = asked is not False and not obstacle
        if self.enabled:
            _install(_plain(model))

    @contextlib.contextmanager
    def generating(self, model: Any) -> Iterator[None]:
        """Inside, `model.generate` reads a prompt once for all responses; see `models.generation`."""
        if not self._generates:
            yield
            return
        model.generate = functools.partial(generate, model, otherwise=model.generate)
        try:
            yield
        finally:
            # Whoever stood before it on the way may have taken it away already.
            model.__dict__.pop("generate", None)

    def packed(self, labels: Tensor, given: dict[str, Any]) -> PackedPrompts | None:
        """The batch packed, or `None` where it had better be run as it is.

        Args:
            labels: `(B, P+T)`, -100 where nothing is scored.
            given: everything else the model is called with.
        """
        # Adapters hand on what was not given as None.
        known = {name for name, value in given.items() if value is not None} - {"output_router_logits"}
        if not self.enabled or known != {"input_ids", "attention_mask"}:
            return None
        ids, mask = given["input_ids"], given["attention_mask"]
        width = prompt_width(labels)
        if width == 0 or len(ids) == 1:
            return None
        packed = pack(ids, mask, width, every_token=bool(given.get("output_router_logits")))
        most = 1.0 if self._asked else SAVES_ENOUGH
        return packed if packed.ids.numel() <= most * ids.numel() else None


def run_packed(backbone: Any, packed: PackedPrompts, **settings: Any) -> Any:
    """What the backbone of a language model makes of packed tokens.

    Args:
        backbone: it.
        packed: the tokens.
        **settings: of the forward pass.
    """
    return backbone(
        input_ids=packed.ids,
        # Handed on as it is because it has four dimensions; which masks count is decided layer by layer.
        attention_mask=packed.masks()[1],
        position_ids=packed.positions,
        packed_prompts=packed,
        **settings,
        use_cache=False,
    )


def balance_loss(config: Any, router_logits: Any, packed: PackedPrompts) -> Any:
    """The load-balancing loss of a mixture of experts on the padded batch: a prompt counts once per response.

    Args:
        config: the model's.
        router_logits: `(N·P + B·R, experts)` of each layer, every token of the responses among them.
        packed: the tokens.
    """
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    # The function weighs tokens by its mask.
    return load_balancing_loss_func(router_logits, config.num_experts, config.num_experts_per_tok, packed.counts)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_prompts: PackedPrompts | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """The `sdpa` of transformers; of packed prompts, query, key and value are `(1, heads, N·P + B·R, D)`."""
    if packed_prompts is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return plain
    unknown = [name for name in _UNKNOWN if settings.get(name) is not None]
    if unknown:
        raise NotImplementedError(f"attention with {unknown[0]} is not written for packed prompts")
    of_prompts, of_responses = packed_prompts.masks(settings.get("sliding_window"))
    (prompt_query, query), (prompt_key, key), (prompt_value, value) = (
        [part.transpose(1, 2) for part in packed_prompts.apart(both.transpose(1, 2), packed_prompts.blocks)]
        for both in (query, key, value)
    )
    product = functools.partial(_product, dropout=settings.get("dropout", 0.0), scaling=settings.get("scaling"))
    results = [product(prompt_query, prompt_key, prompt_value, of_prompts)]
    if query.shape[2]:
        copied = len(query) > len(prompt_query)
        keys, values = (
            torch.cat([prompt.index_select(0, packed_prompts.which) if copied else prompt, own], dim=2)
            for prompt, own in ((prompt_key, key), (prompt_value, value))
        )
        results.append(product(query, keys, values, of_responses))
    flat = [result.transpose(1, 2).reshape(1, -1, *result.shape[1::2]) for result in results]
    return torch.cat(flat, dim=1), None


def _product(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.device.type != "cpu":
        # Elsewhere the fast kernels take a mask or groups of heads, not both.
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        grouped = False
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )


def _plain(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _install(model: Any) -> None:
    """Let a model's attention know packed prompts, for good: gradient checkpointing calls it again much later."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.config._attn_implementation = ATTENTION


def _obstacle(model: Any) -> str:
    """Why prompts of this model cannot be shared; empty if they can."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "the adapter puts virtual tokens before every prompt"
    model = _plain(model)
    config, name = model.config, type(model).__name__
    implementation = getattr(config, "_attn_implementation", None)
    if implementation not in ("sdpa", ATTENTION):
        return f"attention is computed by {implementation}; packed prompts need attn_implementation='sdpa'"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{name} does not let its attention be replaced"
    other = sorted(set(getattr(config, "layer_types", None) or ()) - set(_POSITIONAL_LAYERS))
    if other:
        return f"{name} has layers of {other[0]}; packed prompts need full or sliding attention"
    if is_noisy(model):
        return f"{name} has dropout, which is drawn for each response (disable_dropout=True switches it off)"
    return _difference(model)


def _difference(model: Any) -> str:
    """Run a few tokens with and without sharing, and say how the results differ if they do.

    What a configuration does not tell, a layer that mixes neighbours or positions read in another way, shows here.
    """
    device, backbone = next(model.parameters()).device, model.base_model
    ids = torch.tensor([[1, 1, 2, 3, 4, 5, 6, 7], [8, 9, 2, 3, 7, 6, 5, 4], [8, 9, 2, 3, 4, 4, 7, 8]], device=device)
    ids %= model.get_input_embeddings().weight.shape[0]
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    width = 4
    before, was_training = model.config._attn_implementation, model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            _install(model)
            packed = pack(ids, mask, width)
            actual = packed.states(run_packed(backbone, packed).last_hidden_state)
    except Exception as error:  # whatever a strange model does with what it is not used to
        return f"{type(model).__name__} cannot run packed prompts ({type(error).__name__}: {str(error)[:120]})"
    finally:
        model.config._attn_implementation = before
        model.train(was_training)
    expected = expected[:, width - 1 : -1]
    apart = float((actual - expected).float().norm() / expected.float().norm())
    allowed = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 0.1
    if apart < allowed:
        return ""
    return f"{type(model).__name__} gives other results for packed prompts (relative difference {apart:.1g})"
