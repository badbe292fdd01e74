"""One step of `ObjectiveTrainer` beside one of TRL's own trainer with the same settings, on a small Qwen2.

    python benchmarks/trl_trainer.py

Needs the `llm` extra. A step is the scoring of the old policy where there is one, loss, backward pass and optimiser;
generation, which is TRL's in both, is left out. Trainers take turns in one process, on one thread.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from models.causal_lm import load_causal_lm
from testbed.engines.trl import ObjectiveTrainer

STEPS, REPEATS, LENGTH = 12, 3, 64
TRAINERS = ("TRL grpo", "grpo", "erc(base=grpo)", "bapo")


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


def seconds(name: str, folder: str) -> list[float]:
    """Time of every optimiser step but the first two, those without generation."""
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
    trainer.train()
    times = [entry["step_time"] for entry in trainer.state.log_history if "step_time" in entry]
    # Every second step trains on responses that are already there.
    return times[3::2]


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    times: dict[str, list[float]] = {name: [] for name in TRAINERS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            for name in TRAINERS:
                with contextlib.redirect_stdout(io.StringIO()):
                    times[name] += seconds(name, folder)
    # The quickest step: a busy machine only ever adds.
    base = min(times[TRAINERS[0]])
    print(f"16 responses of up to {LENGTH} tokens, qwen2-1m, float32, PyTorch {torch.__version__}")
    for name, record in times.items():
        print(f"  {name:<16} {min(record) * 1e3:7.1f} ms {min(record) / base:6.2f}x (at most 1.10x)")


if __name__ == "__main__":
    main()
