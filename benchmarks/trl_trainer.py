"""One step of `ObjectiveTrainer` beside one of TRL's own trainer with the same settings, on a small Qwen2.

    python benchmarks/trl_trainer.py

Needs the `llm` extra. A step is loss, backward pass, optimiser and metrics on responses that are already there;
generation, which is TRL's in both, is left out. Trainers take turns in one process, on one thread, and it is the
processor's time that counts, so that a busy machine disturbs little.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from models.causal_lm import load_causal_lm
from testbed.engines.trl import ObjectiveTrainer

STEPS, REPEATS, LENGTH = 12, 3, 64
TRAINERS = ("TRL grpo", "grpo", "erc(base=grpo)", "bapo")


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


def seconds(name: str, folder: str) -> list[float]:
    """Time of the optimiser steps without generation."""
    model, tokenizer = load_causal_lm("qwen2-1m")
    settings = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=16,
        num_generations=8,
        num_iterations=2,
        max_completion_length=LENGTH,
        max_steps=STEPS,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **({"loss_type": "grpo"} if name.startswith("TRL") else {}),
    )
    data = Dataset.from_dict({"prompt": [f"{number}+{number + 3}=" for number in range(64)]})
    common: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "args": settings,
        "train_dataset": data,
        "reward_funcs": reward,
    }
    trainer = GRPOTrainer(**common) if name.startswith("TRL") else ObjectiveTrainer(name, **common)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    # Every second step trains on responses that are already there; the first of them warms up.
    return clock.times[3::2]


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
    main()
