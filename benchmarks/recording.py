"""What a record costs a training step of cpu-smoke, its bytes per token, and whether replay gives the step back.

    python benchmarks/recording.py [--turns 6] [--steps 4]

The trainer of the configuration `cpu-smoke`, without its warm start, takes the same steps with and without a record,
turn by turn in one process; processor time counts, on one thread. The ratio is the median over pairs of turns, one in
each order; where a busy machine scatters it by more than the cost, the parts say more: the processor time inside the
writer, and that of κ beside the same call without it, over the time of the steps. Equality is that of the loss and of
its gradient √Σ(∂L/∂log p)² between the batch that was trained on and its replay.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _measuring import machine_facts

from analysis.replay import replay
from envs.grading import Grader
from envs.math_tasks import load_task
from models.causal_lm import load_causal_lm
from testbed.engines.trl import ObjectiveTrainer, head
from testbed.finetune import load_settings
from testbed.objectives import make_objective


def build(folder: Path, steps: int, record: Path | None, grader: Grader) -> ObjectiveTrainer:
    from trl import GRPOConfig

    settings = load_settings("cpu-smoke")
    model, tokenizer = load_causal_lm(settings.model, seed=0)
    chosen = {
        "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True, "logging_steps": 1000, **settings.trainer, "max_steps": steps, "output_dir": str(folder),
    }  # fmt: skip
    return ObjectiveTrainer(
        settings.objective,
        model=model,
        processing_class=tokenizer,
        args=GRPOConfig(**chosen),
        train_dataset=load_task(settings.train.source).dataset(),
        reward_funcs=[grader.reward, _digits],
        record=record,
    )


def _digits(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Without a warm start no answer is right; a reward that differs lets the loss be something."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def seconds(trainer: Any) -> float:
    started = time.process_time()
    trainer.train()
    return time.process_time() - started


def parts(folder: Path, grader: Grader, steps: int) -> tuple[float, float]:
    """Processor time of the writer and of κ, as shares of that of the steps."""
    trainer = build(folder, steps, folder / "parts", grader)
    spent = {"writer": 0.0, "kappas": 0.0, "measuring": 0.0}
    writer, statistics_of = trainer.recording.writer, head.token_statistics_from_hidden

    def timed(method: Callable[..., None]) -> Callable[..., None]:
        def both(*arguments: Any, **given: Any) -> None:
            started = time.process_time()
            method(*arguments, **given)
            spent["writer"] += time.process_time() - started

        return both

    def timed_statistics(*arguments: Any, with_kappas: bool, **given: Any) -> Any:
        times = [time.process_time()]
        with torch.no_grad():
            for wanted in (False, True):
                statistics_of(*arguments, with_kappas=wanted, **given)
                times.append(time.process_time())
        spent["kappas"] += times[2] - 2 * times[1] + times[0]
        spent["measuring"] += times[2] - times[0]
        return statistics_of(*arguments, with_kappas=with_kappas, **given)

    # What is written as a shard is written by `close`, at the end of training.
    writer.add, writer.close = timed(writer.add), timed(writer.close)
    head.token_statistics_from_hidden = timed_statistics
    try:
        whole = seconds(trainer)
    finally:
        head.token_statistics_from_hidden = statistics_of
    own = whole - spent["measuring"] - spent["writer"] - spent["kappas"]
    return spent["writer"] / own, spent["kappas"] / own


def equality(folder: Path, grader: Grader, steps: int) -> tuple[float, float, float, int]:
    """Largest relative differences of loss and gradient, bytes a token-update, and token-updates."""
    trainer = build(folder, steps, folder / "equal", grader)
    losses, gradients = [], []
    finish = trainer._finish_step

    def note(step: Any, batch: Any) -> None:
        finish(step, batch)
        with torch.enable_grad():
            leaf = batch.log_probs.detach().clone().requires_grad_()
            loss = make_objective(trainer.objective).loss(batch.with_current(leaf))
            (gradient,) = torch.autograd.grad(loss, leaf)
        losses.append(loss.item())
        gradients.append(gradient.square().sum().sqrt().item())

    trainer._finish_step = note
    trainer.train()
    done = replay(folder / "equal", [trainer.objective])
    table = done.table.sort_values(["step", "update"])
    off = [
        max(abs(found - expected) / abs(expected) for found, expected in zip(table[name], trained, strict=True))
        for name, trained in (("loss", losses), ("gradient", gradients))
    ]
    size = sum(path.stat().st_size for path in (folder / "equal").glob("*.parquet"))
    return off[0], off[1], size / done.tokens, done.tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    ratios = []
    with tempfile.TemporaryDirectory() as name, contextlib.closing(Grader()) as grader:
        folder = Path(name)
        for turn in range(given.turns + 1):
            taken = {}
            # The order alternates, so that neither always comes second.
            for recorded in (False, True) if turn % 2 else (True, False):
                with contextlib.redirect_stdout(io.StringIO()):
                    record = folder / f"record-{turn}" if recorded else None
                    taken[recorded] = seconds(build(folder, given.steps, record, grader))
            if turn:
                ratios.append(taken[True] / taken[False])
        print(machine_facts())
        # Whoever comes second is faster: the geometric mean of two turns, one in each order, is free of that.
        pairs = [math.sqrt(first * second) for first, second in zip(ratios[::2], ratios[1::2], strict=False)]
        spread = f"{min(pairs):.3f} to {max(pairs):.3f}"
        print(f"recorded over unrecorded: {statistics.median(pairs):.3f} ({spread}, {len(pairs)} pairs)", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):
            writer, kappas = parts(folder, grader, 2 * given.steps)
        print(f"of an unrecorded step: writer {writer:.2%}, κ {kappas:.2%}", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):
            loss, gradient, size, tokens = equality(folder, grader, given.steps)
    print(f"bytes a token-update: {size:.1f} ({tokens:,} token-updates)")
    print(f"largest relative difference of the replayed loss: {loss:.1e}, of its gradient: {gradient:.1e}")


if __name__ == "__main__":
    main()
