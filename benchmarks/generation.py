"""Answers by `models.generation` beside transformers' own `generate`: the same tokens, in processor time.

    python benchmarks/generation.py [MODEL…]

Needs the `llm` extra. 64 answers of 16 tokens, in groups of 8 to a prompt of 48 tokens, are sampled from the whole
distribution, and once more with a tenth of the vocabulary ending an answer. Both take turns in one process, on one
thread. MODEL is a size, a pretrained model or a folder, as `models.causal_lm.load_causal_lm` takes them.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _measuring import machine_facts, markdown_table
from transformers import GenerationConfig, LlamaConfig

from models.causal_lm import load_causal_lm
from models.generation import generate

TURNS, GROUPS, SIZE, PROMPT, ANSWER = 5, 8, 8, 48, 16
LLAMA = LlamaConfig(
    vocab_size=1024,
    hidden_size=320,
    intermediate_size=960,
    num_hidden_layers=8,
    num_attention_heads=5,
    num_key_value_heads=5,
)
MODELS: dict[str, Any] = {"qwen2-1m": "qwen2-1m", "qwen2-10m": "qwen2-10m", "llama-10m": LLAMA}


def turn(write: Callable[..., Any], **given: Any) -> tuple[float, torch.Tensor]:
    """Processor time of one call, and the tokens."""
    torch.manual_seed(0)
    started = time.process_time()
    with torch.no_grad():
        tokens: torch.Tensor = write(**given)
    return time.process_time() - started, tokens


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(machine_facts())
    rows = []
    for name in names:
        model = load_causal_lm(MODELS.get(name, name), **({"tokenizer": "bpe"} if name == "llama-10m" else {})).model
        vocabulary = model.config.vocab_size
        generator = torch.Generator().manual_seed(0)
        prompts = torch.randint(3, vocabulary, (GROUPS, PROMPT), generator=generator).repeat_interleave(SIZE, 0)
        for ends in ([vocabulary - 1], list(range(3, vocabulary, 10))):
            given = {
                "input_ids": prompts,
                "attention_mask": torch.ones_like(prompts),
                "generation_config": GenerationConfig(
                    max_new_tokens=ANSWER, do_sample=True, top_k=0, eos_token_id=ends, pad_token_id=0
                ),
            }
            times: tuple[list[float], list[float]] = ([], [])
            same = True
            for number in range(TURNS + 1):
                theirs, tokens = turn(model.generate, **given)
                ours, other = turn(generate, model=model, **given)
                same = same and torch.equal(tokens, other)
                # The first turn warms up.
                if number:
                    times[0].append(theirs)
                    times[1].append(ours)
            ratios = [one / another for one, another in zip(*times, strict=True)]
            kind = "all 16 tokens" if len(ends) == 1 else "one token in ten ends"
            cells = [f"{statistics.median(side) * 1e3:.0f}" for side in times]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"
            rows.append((name, kind, *cells, ratio, "yes" if same else "no"))
    head = ("model", "answers", "transformers, ms", "here, ms", "ratio (least)", "same tokens")
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
