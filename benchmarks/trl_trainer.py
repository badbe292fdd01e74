"""One step of `ObjectiveTrainer` beside one of TRL's own trainer with the same settings, on a small Qwen2.

    python benchmarks/trl_trainer.py
    python benchmarks/trl_trainer.py prefixes [MODEL…]

Needs the `llm` extra. A step is loss, backward pass, optimiser and metrics on responses that are already there;
generation is left out. Trainers take turns in one process, on one thread, and it is the processor's time that counts,
so that a busy machine disturbs little. With `prefixes`: groups of 8 responses whose prompts and responses have a
given number of tokens each, with and without a prompt being run once for its group.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from _measuring import machine_facts, markdown_table
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from models.causal_lm import load_causal_lm
from testbed.engines.trl import ObjectiveTrainer

STEPS, REPEATS, LENGTH = 12, 3, 64
TRAINERS = ("TRL grpo", "grpo", "erc(base=grpo)", "bapo")
TURNS, MODELS, LENGTHS = 5, ("qwen2-1m", "qwen2-10m"), ((48, 4), (64, 64))


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


class Clock(TrainerCallback):
    """Processor time of every optimiser step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.process_time() - self.started)


class FixedLengths:
    """Responses of one length to prompts of one length, in the place of generation; tokens are drawn at random.

    Args:
        prompt: tokens of every prompt.
        response: tokens of every response.
    """

    def __init__(self, prompt: int, response: int) -> None:
        self._prompt, self._response = prompt, response

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        tokens = len(trainer.processing_class)
        drawn = torch.randint(3, tokens, (len(prompts), self._response)).tolist()
        return {
            "prompt_ids": [self._tokens(prompt, tokens) for prompt in prompts],
            "completion_ids": drawn,
            "logprobs": [[-5.0] * self._response for _ in prompts],
        }

    def _tokens(self, prompt: str, tokens: int) -> list[int]:
        generator = torch.Generator().manual_seed(sum(prompt.encode()) * 1000 + len(prompt))
        return torch.randint(3, tokens, (self._prompt,), generator=generator).tolist()


def seconds(name: str, folder: str, model_name: str = "qwen2-1m", steps: int = STEPS, **given: Any) -> list[float]:
    """Time of the optimiser steps without generation."""
    model, tokenizer = load_causal_lm(model_name)
    theirs = name.startswith("TRL")
    settings = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=16,
        num_generations=8,
        num_iterations=2,
        max_completion_length=LENGTH,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **({"loss_type": "grpo"} if theirs else {}),
    )
    data = Dataset.from_dict({"prompt": [f"{number}+{number + 3}=" for number in range(64)]})
    common: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "args": settings,
        "train_dataset": data,
        "reward_funcs": reward,
        **given,
    }
    trainer = GRPOTrainer(**common) if theirs else ObjectiveTrainer(name, **common)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    # Every second step trains on responses that are already there; the first of them warms up.
    return clock.times[3::2]


def prefixes(models: Sequence[str]) -> None:
    """Print what a step costs with and without shared prompts, against TRL's own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(machine_facts())
    rows = []
    for model in models:
        for prompt, response in LENGTHS:
            rollout = FixedLengths(prompt, response)
            arms: dict[str, dict[str, Any]] = {
                "TRL grpo": {},
                "plain": {"shared_prefixes": False},
                "shared": {"shared_prefixes": None},
            }
            times: dict[str, list[float]] = {name: [] for name in arms}
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                for _ in range(TURNS):
                    for name, setting in arms.items():
                        objective = name if name.startswith("TRL") else "grpo"
                        step = seconds(objective, folder, model, 6, rollout_func=rollout, **setting)
                        times[name].append(statistics.median(step))
            theirs, plain, shared = (statistics.median(turns) for turns in times.values())
            ratios = [one / other for one, other in zip(times["TRL grpo"], times["shared"], strict=True)]
            lengths = f"{prompt} and {response}"
            cells = [f"{value * 1e3:.1f}" for value in (theirs, plain, shared)]
            rows.append((model, lengths, *cells, f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"))
    head = ("model", "prompt, response", "TRL's, ms", "plain, ms", "shared, ms", "TRL's / shared (least)")
    print(markdown_table(head, rows))


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    times: dict[str, list[float]] = {name: [] for name in TRAINERS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            for name in TRAINERS:
                with contextlib.redirect_stdout(io.StringIO()):
                    times[name] += seconds(name, folder)
    base = statistics.median(times[TRAINERS[0]])
    print(f"16 responses of up to {LENGTH} tokens, qwen2-1m, float32, PyTorch {torch.__version__}")
    for name, record in times.items():
        median = statistics.median(record)
        print(f"  {name:<16} {median * 1e3:7.1f} ms {median / base:6.2f}x (at most 1.10x)")


if __name__ == "__main__":
    prefixes(sys.argv[2:] or MODELS) if sys.argv[1:2] == ["prefixes"] else main()
