"""Time and peak memory of log-probabilities and entropies with their gradients, beside TRL's own functions.

    python benchmarks/token_statistics.py

Needs TRL (the `llm` extra). Every row is one forward and backward pass with gradients through both outputs; the
methods of a table take turns in one process, on one thread, and the processor's time counts. Memory is the peak of what
the allocator handed out during the pass, beyond the inputs, as a multiple of the logits' size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import selective_log_softmax_and_entropy

from testbed.token_statistics import token_statistics, token_statistics_from_hidden

VOCABULARY, ROWS, WIDTH, REPEATS = 32_768, 1_024, 256, 5
TRL_CHUNK = 32_768

Step = Callable[[], None]


def backward(log_probs: Tensor, entropies: Tensor, weights: Tensor) -> None:
    """A loss that reads both outputs, each token with its own weight."""
    ((log_probs - 0.1 * entropies) * weights).sum().backward()


def from_logits(logits: Tensor, tokens: Tensor, weights: Tensor) -> dict[str, Step]:
    def copied(compute: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Step:
        # A model's logits are no leaf. The addition keeps nothing for its own gradient.
        def step() -> None:
            backward(*compute(logits + 0), weights)
            logits.grad = None

        return step

    return {
        "TRL selective_log_softmax_and_entropy": copied(
            lambda z: selective_log_softmax_and_entropy(z.unsqueeze(0), tokens.unsqueeze(0))
        ),
        "token_statistics": copied(lambda z: token_statistics(z, tokens)),
        "token_statistics, logits overwritten": copied(lambda z: token_statistics(z, tokens, overwrite_logits=True)),
    }


def from_hidden(hidden: Tensor, head: Tensor, tokens: Tensor, weights: Tensor) -> dict[str, Step]:
    def step(compute: Callable[[], tuple[Tensor, ...]]) -> Step:
        def run() -> None:
            backward(*compute()[:2], weights)
            hidden.grad = head.grad = None

        return run

    return {
        "TRL head and selective_log_softmax_and_entropy": step(
            lambda: selective_log_softmax_and_entropy((hidden @ head.T).unsqueeze(0), tokens.unsqueeze(0))
        ),
        "TRL fused head": step(
            lambda: ChunkedLogProbFunction.apply(
                hidden, head, None, tokens, 1.0, TRL_CHUNK, None, 1.0, ("log_probs", "entropy")
            )
        ),
        "token_statistics_from_hidden": step(lambda: token_statistics_from_hidden(hidden, head, tokens)),
    }


def peak_bytes(step: Step) -> int:
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = highest = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def seconds(steps: dict[str, Step]) -> dict[str, float]:
    """Median time of each step; they take turns, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(record) for name, record in times.items()}


def table(title: str, steps: dict[str, Step], unavoidable: int) -> None:
    logits_bytes = 4 * ROWS * VOCABULARY
    memory = {name: peak_bytes(step) - unavoidable for name, step in steps.items()}
    times = seconds(steps)
    slowest = next(iter(steps))
    print(f"\n{title}")
    for name in steps:
        print(
            f"  {name:<48} {times[name] * 1e3:8.0f} ms {times[slowest] / times[name]:6.2f}x"
            f"   {memory[name] / logits_bytes:6.2f} x logits"
        )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens, weights = torch.randint(VOCABULARY, (ROWS,)), torch.randn(ROWS)
    print(f"{ROWS} tokens, vocabulary {VOCABULARY}, float32, width {WIDTH}, PyTorch {torch.__version__}")

    logits = (3 * torch.randn(ROWS, VOCABULARY)).requires_grad_()
    # The logits themselves are made inside the step.
    table("from logits", from_logits(logits, tokens, weights), unavoidable=logits.nbytes)

    hidden = torch.randn(ROWS, WIDTH).requires_grad_()
    head = (3 * torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5).requires_grad_()
    table("from hidden states", from_hidden(hidden, head, tokens, weights), unavoidable=0)


if __name__ == "__main__":
    main()
