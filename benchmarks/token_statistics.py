"""Time, peak memory and accuracy of log-probabilities and entropies with their gradients, beside TRL's own functions.

    python benchmarks/token_statistics.py [--device cuda] [--tokens N] [--vocabulary V] [--width D …]

Needs TRL (the `llm` extra). Every row is one forward and backward pass, except where it says otherwise; the programs of
a table take turns in one process. On the CPU one thread works in float32 and its processor time counts; on a CUDA
device numbers are bfloat16 and the device's own clock counts. Ratios are medians of the ratios within a turn. Memory is
the peak of what the allocator handed out during the pass, beyond the inputs, gradients included. Gradients of both are
measured at every width, everything else at the last.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from _measuring import machine_facts, markdown_table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils as trl

from testbed.token_statistics import token_statistics, token_statistics_from_hidden

TRL_CHUNK = 32_768
"""Columns of the vocabulary at a time in TRL's fused head, as its trainer sets them."""
UNCHECKED = "token_statistics_from_hidden, unchecked as in the trainer"

Statistics = tuple[Tensor, Tensor | None]
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """Sizes, and the device everything happens on."""

    device: str
    tokens: int
    vocabulary: int
    width: int
    turns: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device == "cpu" else torch.bfloat16

    @property
    def logits_bytes(self) -> int:
        return self.tokens * self.vocabulary * self.dtype.itemsize

    def draw(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, device=self.device)).to(self.dtype)

    def draw_tokens(self) -> Tensor:
        return torch.randint(self.vocabulary, (self.tokens,), device=self.device)


# -- other people's formulas -------------------------------------------------------------------------------------------


def trl_from_logits(logits: Tensor, tokens: Tensor) -> Statistics:
    # Triton kernels on a CUDA device, PyTorch elsewhere.
    return trl.selective_log_softmax_and_entropy(logits.unsqueeze(0), tokens.unsqueeze(0))


def verl_from_logits(logits: Tensor, tokens: Tensor) -> Statistics:
    """What verl does without flash-attention: log-softmax and gather, logsumexp - Σ p·z for the entropy."""
    log_probs = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return log_probs, logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


def trl_fused_head(hidden: Tensor, head: Tensor, tokens: Tensor, entropy: bool = True) -> Statistics:
    outputs = ("log_probs", "entropy") if entropy else ("log_probs",)
    results = ChunkedLogProbFunction.apply(hidden, head, None, tokens, 1.0, TRL_CHUNK, None, 1.0, outputs)
    return results[0], results[1]


# -- what is measured --------------------------------------------------------------------------------------------------


def backward(results: Statistics, weights: Tensor, of_entropy: bool = True) -> None:
    """A loss that reads both outputs, each token with its own weight."""
    log_probs, entropies = results
    loss = log_probs * weights
    if of_entropy and entropies is not None:
        loss = loss - 0.1 * entropies * weights
    loss.sum().backward()


def from_logits(case: Case) -> dict[str, Step]:
    leaf = case.draw(case.tokens, case.vocabulary, scale=3).requires_grad_()
    tokens, weights = case.draw_tokens(), torch.randn(case.tokens, device=case.device)

    def step(compute: Callable[[Tensor, Tensor], Statistics], keep: bool = False) -> Step:
        def run() -> None:
            # A model's logits are no leaf. The addition saves nothing for its own gradient.
            logits = leaf + 0
            results = compute(logits, tokens)
            if not keep:
                del logits
            backward(results, weights)
            leaf.grad = None

        return run

    return {
        "TRL selective_log_softmax_and_entropy": step(trl_from_logits),
        "verl's formulas": step(verl_from_logits),
        "token_statistics": step(token_statistics),
        "token_statistics, the caller keeps the logits": step(token_statistics, keep=True),
        "token_statistics, unchecked": step(lambda z, chosen: token_statistics(z, chosen, check=False)),
    }


def from_hidden(case: Case, frozen: bool = False, entropy: bool = True) -> dict[str, Step]:
    hidden, head = inputs_of_a_head(case, frozen)
    tokens, weights = case.draw_tokens(), torch.randn(case.tokens, device=case.device)

    def step(compute: Callable[[], Statistics]) -> Step:
        def run() -> None:
            backward(compute(), weights, entropy)
            hidden.grad = head.grad = None

        return run

    return {
        "TRL fused head": step(lambda: trl_fused_head(hidden, head, tokens, entropy)),
        "TRL head and selective_log_softmax_and_entropy": step(lambda: trl_from_logits(hidden @ head.T, tokens)),
        "token_statistics_from_hidden": step(lambda: token_statistics_from_hidden(hidden, head, tokens)),
        UNCHECKED: step(lambda: token_statistics_from_hidden(hidden, head, tokens, check=False)),
    }


def forward_alone(case: Case) -> dict[str, Step]:
    hidden, head = inputs_of_a_head(case, frozen=False)
    tokens = case.draw_tokens()

    def step(compute: Callable[[], Statistics]) -> Step:
        def run() -> None:
            with torch.no_grad():
                compute()

        return run

    return {
        "TRL fused head": step(lambda: trl_fused_head(hidden, head, tokens)),
        "TRL head and selective_log_softmax_and_entropy": step(lambda: trl_from_logits(hidden @ head.T, tokens)),
        "token_statistics_from_hidden": step(lambda: token_statistics_from_hidden(hidden, head, tokens)),
        UNCHECKED: step(lambda: token_statistics_from_hidden(hidden, head, tokens, check=False)),
    }


def inputs_of_a_head(case: Case, frozen: bool) -> tuple[Tensor, Tensor]:
    hidden = case.draw(case.tokens, case.width).requires_grad_()
    head = case.draw(case.vocabulary, case.width, scale=3 / case.width**0.5).requires_grad_(not frozen)
    return hidden, head


# -- how -----------------------------------------------------------------------------------------------------------


def peak_bytes(step: Step, device: str) -> int:
    step()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = highest = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def seconds(step: Step, device: str) -> float:
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    began = time.process_time()
    step()
    return time.process_time() - began


def table(title: str, steps: dict[str, Step], case: Case, of_step: int = 0) -> None:
    """Print one; `of_step` bytes belong to the step itself whatever the method."""
    memory = {name: peak_bytes(step, case.device) - of_step for name, step in steps.items()}
    turns = [{name: seconds(step, case.device) for name, step in steps.items()} for _ in range(case.turns)]
    peers = list(steps)[:2]
    rows = []
    for name in steps:
        faster = (statistics.median(turn[peer] / turn[name] for turn in turns) for peer in peers)
        rows.append(
            (
                name,
                f"{statistics.median(turn[name] for turn in turns) * 1e3:,.1f}",
                *(f"{value:.2f}" for value in faster),
                f"{memory[name] / 2**20:,.0f}",
                *(f"{memory[name] / memory[peer]:.2f}" for peer in peers),
                f"{memory[name] / case.logits_bytes:.2f}",
            )
        )
    head = ("", "ms", "× 1st's speed", "× 2nd's", "MiB", "× 1st's", "× 2nd's", "× logits")
    print(f"\n{title}\n\n{markdown_table(head, rows)}", flush=True)


def accuracy(case: Case) -> None:
    """Print the largest deviations from float64 on the same logits."""
    rows = min(case.tokens, 128)
    logits = case.draw(rows, case.vocabulary, scale=3)
    tokens, weights = case.draw_tokens()[:rows], torch.randn(rows, device=case.device)
    exact = logits.double().requires_grad_()
    log_softmax = exact.log_softmax(-1)
    expected = log_softmax.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), -(log_softmax.exp() * log_softmax).sum(-1)
    backward(expected, weights.double())
    assert exact.grad is not None
    lines: list[Sequence[str]] = []
    for name, compute in (("TRL", trl_from_logits), ("token_statistics", token_statistics)):
        leaf = logits.clone().requires_grad_()
        results = compute(leaf, tokens)
        results = tuple(value.view(-1) for value in results)
        backward(results, weights)
        errors = [(a.double() - b).abs().max().item() for a, b in zip(results, expected, strict=True)]
        assert leaf.grad is not None
        gradient = (leaf.grad.double() - exact.grad).norm().item() / exact.grad.norm().item()
        lines.append((name, *(f"{error:.1e}" for error in errors), f"{gradient:.1e}"))
    head = ("", "log-probability", "entropy", "gradient, relative")
    print(f"\nLargest deviation from float64 on the same logits\n\n{markdown_table(head, lines)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--width", type=int, nargs="+")
    parser.add_argument("--turns", type=int)
    given = parser.parse_args()
    sizes = (1_024, 32_768, (64, 128, 256), 5) if given.device == "cpu" else (8_192, 151_936, (1_536,), 15)
    chosen = (given.tokens, given.vocabulary, given.width, given.turns)
    tokens, vocabulary, widths, turns = (value or size for value, size in zip(chosen, sizes, strict=True))
    cases = [Case(given.device, tokens, vocabulary, width, turns) for width in widths]
    case = cases[-1]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = torch.cuda.get_device_name() if case.device == "cuda" else machine_facts()
    print(
        f"{case.tokens} tokens, vocabulary {case.vocabulary}, width {case.width}, {case.dtype}, {case.turns} turns\n"
        f"{machine}, torch {torch.__version__}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    )
    accuracy(case)
    for each in cases:
        table(f"From hidden states of width {each.width}, gradients of both", from_hidden(each), each)
    table("From hidden states, the head is frozen", from_hidden(case, frozen=True), case)
    table("From hidden states, log-probabilities alone enter the loss", from_hidden(case, entropy=False), case)
    table("From hidden states, forward pass alone", forward_alone(case), case)
    # The logits themselves are made inside the step.
    table("From logits", from_logits(case), case, of_step=case.logits_bytes)


if __name__ == "__main__":
    main()
