"""What every test relies on: no network, one thread per process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# Before any test imports transformers, which reads this once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

# Small tensors are slower on several threads, and the test workers already use every core.
torch.set_num_threads(1)

START, END = "<|im_start|>", "<|im_end|>"


@pytest.fixture
def stranger() -> Callable[..., Any]:
    """Makes small tokenizers with the habits of well-known ones, from the package's own.

    `adds` is what stands around every text `$A`, in the notation of the tokenizers package.
    """

    def make(adds: str = "$A", template: str | None = None, bos: str | None = None, eos: str | None = END) -> Any:
        from tokenizers import processors

        from models.causal_lm import load_tokenizer

        tokenizer = load_tokenizer("character")
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = bos, eos, eos
        tokenizer.chat_template = template
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=adds, special_tokens=[(START, 1), (END, 2)]
        )
        return tokenizer

    return make
