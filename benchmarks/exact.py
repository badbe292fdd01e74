"""How much the exact solvers save over writing out every response: ratios measured side by side in one run.

    python benchmarks/exact.py

Both comparisons are at vocabulary 8 and 6 tokens, 262,144 responses, on one thread. The brute force is vectorised:
one row per response, no Python loop over them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from envs import exact, make_spec, prefix_tree
from envs.automaton import Automaton

VOCABULARY, LENGTH, WIDTH, REPEATS = 8, 6, 32, 5


class PrefixModel:
    """A policy that needs the whole prefix: a tanh network over position-wise embeddings, in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(LENGTH, VOCABULARY, WIDTH, dtype=torch.float64, generator=generator)
        self.head = torch.randn(WIDTH, VOCABULARY, dtype=torch.float64, generator=generator)

    def __call__(self, prompts: Tensor, prefixes: Tensor) -> Tensor:
        hidden = torch.zeros(len(prompts), WIDTH, dtype=torch.float64)
        for position in range(prefixes.shape[1]):
            hidden += self.embedding[position, prefixes[:, position]]
        return torch.log_softmax(hidden.tanh() @ self.head, -1)


def all_responses() -> Tensor:
    return torch.cartesian_prod(*[torch.arange(VOCABULARY)] * LENGTH)


def walk(spec: Automaton, responses: Tensor) -> list[Tensor]:
    """The state before each token of each response."""
    states = [spec.initial_states.expand(len(responses))]
    for position in range(LENGTH - 1):
        states.append(spec.step(states[-1], responses[:, position]))
    return states


def summarise(spec: Automaton, responses: Tensor, states: list[Tensor], log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Expected reward and entropy as sums over responses."""
    rewards = spec.rewards[states[-1], responses[:, -1]]
    probs = log_probs.exp()
    return (probs * rewards).sum(), -(probs * log_probs).sum()


def naive_prefix(spec: Automaton, model: PrefixModel) -> tuple[Tensor, Tensor]:
    responses = all_responses()
    prompts = torch.zeros(len(responses), dtype=torch.int64)
    log_probs = torch.zeros(len(responses), dtype=torch.float64)
    for position in range(LENGTH):
        row = model(prompts, responses[:, :position])
        log_probs += row.gather(-1, responses[:, position, None]).squeeze(-1)
    return summarise(spec, responses, walk(spec, responses), log_probs)


def tree_prefix(spec: Automaton, model: PrefixModel) -> tuple[Any, Any]:
    result = prefix_tree.evaluate(spec, model)
    return result.value, result.entropy


def brute_force(spec: Automaton, log_policy: Tensor) -> tuple[Tensor, Tensor]:
    responses = all_responses()
    states = walk(spec, responses)
    log_probs = torch.stack([log_policy[s, responses[:, t]] for t, s in enumerate(states)]).sum(0)
    return summarise(spec, responses, states, log_probs)


def dynamic_programming(spec: Automaton, log_policy: Tensor) -> tuple[Any, Any]:
    result = exact.evaluate(spec, log_policy)
    return result.value, result.entropy


def brute_force_gradient(spec: Automaton, log_policy: Tensor) -> Tensor:
    logits = log_policy.clone().requires_grad_()
    value, _ = brute_force(spec, logits.log_softmax(-1))
    return torch.autograd.grad(value, logits)[0]


def seconds(*calls: Callable[[], Any]) -> list[float]:
    """Median time of each call; the calls take turns, so that a busy machine slows all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(REPEATS):
        for record, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return [statistics.median(record) for record in times]


def report(label: str, slow: float, fast: float, difference: float, target: float) -> None:
    print(
        f"{label:<44} {slow * 1e3:9.1f} ms {fast * 1e3:8.2f} ms {slow / fast:7.0f}x (at least {target:.0f}x)"
        f"   difference {difference:.1e}"
    )


def largest(first: Any, second: Any) -> float:
    return max(abs(float(a) - float(b)) for a, b in zip(first, second, strict=True))


def main() -> None:
    torch.set_num_threads(1)
    spec = make_spec("ModularSum-v1", prompts=1, length=LENGTH, vocabulary=VOCABULARY, modulus=4)
    model = PrefixModel()
    log_policy = spec.initial_logits.log_softmax(-1)
    print(f"V={VOCABULARY}, T={LENGTH}, {prefix_tree.count_responses(spec):,} responses, {spec.states} states\n")

    slow, fast = seconds(lambda: naive_prefix(spec, model), lambda: tree_prefix(spec, model))
    report(
        "prefix tree against enumeration", slow, fast, largest(naive_prefix(spec, model), tree_prefix(spec, model)), 20
    )

    slow, fast = seconds(lambda: brute_force(spec, log_policy), lambda: dynamic_programming(spec, log_policy))
    difference = largest(brute_force(spec, log_policy), dynamic_programming(spec, log_policy))
    report("dynamic programming against enumeration", slow, fast, difference, 20)

    slow, fast = seconds(
        lambda: brute_force_gradient(spec, log_policy), lambda: exact.policy_gradient(spec, log_policy)
    )
    gradients = brute_force_gradient(spec, log_policy) - exact.policy_gradient(spec, log_policy)
    report("policy gradient against autograd", slow, fast, float(gradients.abs().max()), 20)


if __name__ == "__main__":
    main()
