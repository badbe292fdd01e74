"""The tokens of transformers' `generate`, sooner: each prompt is read once, and answers that ended are put away.

Sampling consumes random numbers as `generate` does, so that both write the same tokens but for rounding. Wherever
anything is asked for that is not written here, `generate` itself does it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from testbed.errors import BatchError

__all__ = ["distinct_prompts", "generate", "is_noisy"]

PUT_AWAY = 0.75
"""Answers that ended leave the cache when at most this part of it is still being written; leaving copies the rest."""

_READ = ("do_sample", "temperature", "top_k", "top_p", "min_p", "max_new_tokens", "eos_token_id", "pad_token_id")
# They have no effect where the number of new tokens is given, nothing is compiled, and a prompt is there.
_WITHOUT_EFFECT = (
    "_from_model_config",
    "bos_token_id",
    "disable_compile",
    "max_length",
    "transformers_version",
    "use_cache",
)


def distinct_prompts(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Different rows among prompts, whatever stands where they are masked.

    Args:
        ids: int64 `(B, P)`.
        mask: 1 or true where there is a token, `(B, P)`.

    Returns:
        `(N,)`: for each different prompt the first row that has it; `(B,)`: which of them each row has.

    >>> first, which = distinct_prompts(torch.tensor([[0, 7], [3, 7], [9, 7]]), torch.tensor([[0, 1], [1, 1], [0, 1]]))
    >>> first.tolist(), which.tolist()
    ([0, 1], [0, 1, 0])
    """
    different, which = torch.unique(ids.masked_fill(mask == 0, -1), dim=0, return_inverse=True)
    rows = torch.arange(len(ids), device=ids.device)
    first = rows.new_full((len(different),), len(ids)).scatter_reduce(0, which, rows, "amin")
    return first, which


def is_noisy(model: Any) -> bool:
    """Whether a model draws random numbers while it is trained, other ones for each row of a batch."""
    shares = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    shares += [getattr(model.config, name, None) or 0.0 for name in ("attention_dropout", "router_jitter_noise")]
    return any(shares)


def generate(
    model: Any,
    *,
    generation_config: Any,
    otherwise: Callable[..., Any] | None = None,
    **given: Any,
) -> Any:
    """What `model.generate(generation_config=generation_config, **given)` returns, without its gradient.

    Written here: sampling by temperature, top-k, top-p and min-p, or the most probable token; until end tokens or
    stopping criteria; processors of logits, which are given all rows. For models whose layers remember keys and values
    of all tokens and nothing else, without dropout.

    Args:
        model: a causal language model of transformers, or an adapter around one.
        generation_config: as transformers takes it.
        otherwise: does everything else; `None`: `model.generate`.
        **given: `input_ids` and `attention_mask` `(B, P)`, padded on the left; `stopping_criteria`, `logits_processor`.

    Returns:
        int64 `(B, P + tokens of the longest answer)`, padded behind the end of an answer.

    Raises:
        BatchError: a model's logits are NaN or infinite.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    plan = _plan(whole, generation_config, given)
    virtual = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    if plan is None or virtual:
        return (otherwise or model.generate)(generation_config=generation_config, **given)
    with torch.no_grad():
        return _written(whole, given["input_ids"], given["attention_mask"], plan)


class _Plan(NamedTuple):
    """What decides the next tokens."""

    ends: Tensor
    pad: int
    most: int
    sampled: bool
    warpers: list[Callable[[Tensor, Tensor], Tensor]]
    processors: Sequence[Callable[[Tensor, Tensor], Tensor]]
    criteria: Sequence[Callable[..., Tensor]]
    cache: Any


def _plan(model: Any, generation_config: Any, given: Mapping[str, Any]) -> _Plan | None:
    """What is asked for; `None` if it is more than is written here."""
    ids, mask = given.get("input_ids"), given.get("attention_mask")
    known = ("input_ids", "attention_mask", "stopping_criteria", "logits_processor")
    other = {name: value for name, value in given.items() if name not in known}
    settings, rest = model._prepare_generation_config(generation_config, **other)
    rest = [name for name, value in rest.items() if value is not None]
    cache = _cache(model)
    if (
        rest
        or ids is None
        or mask is None
        or cache is None
        or _is_spread(model)
        or (model.training and is_noisy(model))
    ):
        return None
    defaults = type(settings)().to_dict() | settings._get_default_generation_params()
    asked = {
        name
        for name, value in settings.to_dict().items()
        if name not in (*_READ, *_WITHOUT_EFFECT) and value not in (None, False, defaults.get(name))
    }
    needed = (settings.max_new_tokens, settings.eos_token_id, settings.pad_token_id)
    if asked or not settings.use_cache or any(value is None for value in needed):
        return None
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    return _Plan(
        ends=torch.tensor(ends, device=ids.device),
        pad=settings.pad_token_id,
        most=settings.max_new_tokens,
        sampled=bool(settings.do_sample),
        warpers=_warpers(settings) if settings.do_sample else [],
        processors=given.get("logits_processor") or [],
        criteria=given.get("stopping_criteria") or [],
        cache=cache,
    )


def _warpers(settings: Any) -> list[Any]:
    """Those of transformers, in its order."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    chosen: list[Any] = []
    if settings.temperature is not None and settings.temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(float(settings.temperature)))
    if settings.top_k:
        chosen.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p is not None and settings.top_p < 1.0:
        chosen.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p is not None:
        chosen.append(MinPLogitsWarper(settings.min_p))
    return chosen


def _cache(model: Any) -> Any:
    """An empty cache of a model whose layers keep all keys and values; `None` for any other model."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    if model.config.is_encoder_decoder or getattr(model, "_is_stateful", False):
        return None
    cache = DynamicCache(config=model.config.get_text_config())
    kinds = {type(layer) for layer in cache.layers}
    return cache if kinds == {DynamicLayer} and "past_key_values" in _arguments(model) else None


def _is_spread(model: Any) -> bool:
    """Whether weights are on several devices or processes."""
    head = model.get_output_embeddings().weight
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    return hasattr(head, "full_tensor") or hasattr(head, "ds_id") or len(places) > 1


def _arguments(model: Any) -> Mapping[str, Any]:
    return inspect.signature(model.forward).parameters


def _written(model: Any, ids: Tensor, mask: Tensor, plan: _Plan) -> Tensor:
    rows, width = ids.shape
    end = width + plan.most
    written = torch.cat([ids, ids.new_full((rows, plan.most), plan.pad)], dim=1)
    seen = torch.cat([mask, mask.new_ones(rows, plan.most)], dim=1) if not bool(mask.all()) else None
    places = (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)
    first, which = distinct_prompts(ids, mask)
    read = functools.partial(_read, model, _arguments(model))
    logits = read(ids[first], None if seen is None else mask[first], places[first], plan.cache)[which]
    cache = _with_room(plan.cache, which, end)
    held = torch.arange(rows, device=ids.device)
    running = torch.ones_like(held, dtype=torch.bool)
    for column in range(width, end):
        tokens = _next(written[:, :column], logits, held, plan)
        written[held, column] = tokens.where(running, plan.pad)
        running &= ~torch.isin(tokens, plan.ends)
        for criterion in plan.criteria:
            running &= ~criterion(written[held, : column + 1], None)
        left = int(running.sum())
        if left == 0 or column + 1 == end:
            return written[:, : column + 1]
        if left <= PUT_AWAY * len(held):
            kept = running.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            held, running = held[kept], running[kept]
        latest, now = written[held, column : column + 1], places[held, -1:] + (column + 1 - width)
        logits = read(latest, None if seen is None else seen[held, : column + 1], now, cache)
    return written


def _read(model: Any, known: Mapping[str, Any], ids: Tensor, mask: Tensor | None, places: Tensor, cache: Any) -> Tensor:
    """Logits `(B, V)` of the token behind the last."""
    optional = {"position_ids": places, "logits_to_keep": 1}
    settings = {name: value for name, value in optional.items() if name in known}
    output = model(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, return_dict=True, **settings
    )
    last: Tensor = output.logits[:, -1].float()
    return last


def _next(written: Tensor, logits: Tensor, held: Tensor, plan: _Plan) -> Tensor:
    """The next tokens `(H,)` of the rows that are held, of B."""
    if plan.processors:
        # Processors may remember rows from one token to the next.
        everywhere = logits.new_zeros(len(written), logits.shape[1])
        everywhere[held] = logits
        for process in plan.processors:
            everywhere = process(written, everywhere)
        logits = everywhere[held]
    for warp in plan.warpers:
        logits = warp(written, logits)
    if plan.sampled:
        # What torch.multinomial does with these numbers.
        best, tokens = logits.softmax(dim=1).div_(_exponential(len(written), held, logits)).max(dim=1)
        wrong = best.isnan()
    else:
        best, tokens = logits.max(dim=1)
        wrong = ~best.isfinite()
    if bool(wrong.any()):
        raise BatchError(
            "the model gives NaN or infinite logits for the next token, so that there is nothing to choose from; look "
            "at its weights, or load it in a wider dtype"
        )
    return tokens


def _exponential(rows: int, held: Tensor, logits: Tensor) -> Tensor:
    """Exponential numbers `(H, V)` as PyTorch draws them, those of rows that are put away among what is drawn."""
    shape = rows, logits.shape[1]
    if logits.device.type == "cpu":
        # PyTorch takes the same logarithm of the same uniform numbers, one after the other instead of vectorised.
        drawn = torch.rand(shape, dtype=torch.float64)
        return (drawn if len(held) == rows else drawn[held]).neg_().log1p_().neg_().to(logits.dtype)
    drawn = torch.empty(shape, device=logits.device, dtype=logits.dtype).exponential_()
    return drawn if len(held) == rows else drawn[held]


def _with_room(cache: Any, which: Tensor, length: int) -> Any:
    """A cache of prompts as one of answers to them, with room for the answers.

    Args:
        cache: of N prompts.
        which: `(B,)`, the prompt of each answer.
        length: tokens of prompt and answer.
    """
    from transformers.cache_utils import Cache, DynamicLayer

    class Roomy(DynamicLayer):
        """Keys and values are written into one piece of memory instead of being put together anew at every token."""

        keys: Tensor
        values: Tensor

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.dtype, self.device = layer.keys.dtype, layer.keys.device
            self.is_initialized = True
            self._rooms = [self._room(part) for part in (layer.keys, layer.values)]
            self._show(layer.keys.shape[-2])

        def _room(self, part: Tensor) -> Tensor:
            room = part.new_empty(len(which), part.shape[1], length, part.shape[3])
            room[:, :, : part.shape[2]] = part[which]
            return room

        def _show(self, filled: int) -> None:
            self.keys, self.values = (room[:, :, :filled] for room in self._rooms)

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            filled = self.keys.shape[-2]
            after = filled + key_states.shape[-2]
            for room, new in zip(self._rooms, (key_states, value_states), strict=True):
                room[:, :, filled:after] = new
            self._show(after)
            return self.keys, self.values

        def batch_select_indices(self, indices: Tensor) -> None:
            self._rooms = [room[indices] for room in self._rooms]
            self._show(self.keys.shape[-2])

    return Cache(layers=[Roomy(layer) for layer in cache.layers])
