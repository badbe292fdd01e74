"""Sample answers and score every token of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analysis.profile.profile import PROBLEMS_HELD_OUT, Profile
from models.causal_lm import complete
from models.prompts import encode_prompts
from testbed.errors import ConfigError

__all__ = ["KEPT", "measure"]

KEPT = 64
"""Tokens of a next-token table; the others are one number."""
_ROWS = 8
"""Responses scored in one pass."""


def measure(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 64,
    facts: Mapping[str, Any] | None = None,
) -> Profile:
    """One sampled response per prompt, and the next-token distribution at each of its tokens.

    Args:
        model: a causal language model.
        tokenizer: the one that goes with it.
        prompts: what is answered; every fifth is held out.
        max_new_tokens: limit on the length of a response.
        temperature: of the sampling, above 0; the tables are of the distribution at this temperature.
        stop: strings that end a response.
        seed: of the sampling.
        batch_size: responses sampled in one pass.
        facts: what the profile is to say of itself.

    Raises:
        ConfigError: as `complete`, or the temperature is 0.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}; expected more than 0, or every token has probability 1")
    written = complete(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stop=stop,
        seed=seed,
        batch_size=batch_size,
    )
    rows = encode_prompts(tokenizer, prompts)
    tables = []
    for start in range(0, len(prompts), _ROWS):
        chosen = range(start, min(start + _ROWS, len(prompts)))
        scored = _score(model, [rows[row] for row in chosen], [written[row].ids for row in chosen], temperature)
        tables += [(row, *table) for row, table in zip(chosen, scored, strict=True)]
    problem = np.concatenate([np.full(len(table[1]), table[0], dtype=np.int32) for table in tables])
    position = np.concatenate([np.arange(len(table[1]), dtype=np.int32) for table in tables])
    log_prob, entropy, tokens, log_probs, tail = (
        np.concatenate([table[place] for table in tables]) for place in range(1, 6)
    )
    return Profile(
        problem=problem,
        position=position,
        held_out=problem % PROBLEMS_HELD_OUT == 0,
        log_prob=log_prob,
        entropy=entropy,
        tokens=tokens,
        log_probs=log_probs,
        tail=tail,
        facts=dict(facts or {}),
    )


def _score(
    model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float
) -> list[tuple[Any, ...]]:
    """For each response its log-probabilities, entropies, likeliest tokens, their log-probabilities, and the rest."""
    device = next(model.parameters()).device
    texts = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    width = max(map(len, texts))
    # On the right, where nothing that is read attends to it.
    tokens = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=device)
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=device)
    scored = []
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=mask).logits
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            here = logits[row, len(prompt) - 1 : len(prompt) - 1 + len(response)].double() / temperature
            log_probs = torch.log_softmax(here, dim=-1)
            drawn = log_probs.gather(-1, torch.tensor(response, device=device)[:, None])[:, 0]
            kept, order = log_probs.topk(min(KEPT, log_probs.shape[-1]), dim=-1)
            tail = (1 - kept.exp().sum(-1)).clamp(min=0)
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            single = (drawn, entropy, order.int(), kept, tail)
            scored.append(
                tuple(value.cpu().numpy().astype(value_type) for value, value_type in zip(single, _TYPES, strict=True))
            )
    return scored


_TYPES = (np.float32, np.float32, np.int32, np.float32, np.float32)
