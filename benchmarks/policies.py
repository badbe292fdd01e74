"""What stacking replicas and caching keys and values save: ratios measured side by side in one run.

    python benchmarks/policies.py

One step is a forward pass, the log-probabilities of the sampled tokens, a backward pass and an SGD update, for 16
replicas; the loop does the same with one module per replica, and both must find the same log-probabilities. The other
comparison generates 64 tokens, against a pass over the whole prefix for every token. All on one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.policy import Samples
from models.transformer import TransformerPolicy, sinusoids

REPLICAS, SEQUENCES, STEP_TOKENS, GENERATED, VOCABULARY, REPEATS = 16, 16, 8, 64, 8, 9
RATE = 1e-6


class Module(nn.Module):
    """One replica of a `TransformerPolicy`, written as anybody would write a single network."""

    def __init__(self, policy: TransformerPolicy, replica: int) -> None:
        super().__init__()
        self.layers, self.width, self.heads = policy.layers, policy.width, policy.heads
        self.states = policy.shape[1]
        self.weights = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(weight[replica].clone()) for name, weight in policy.weights.items()}
        )
        self.register_buffer("positions", sinusoids(0, STEP_TOKENS, policy.width).float())

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        weights, width = self.weights, self.width
        inputs = torch.cat([states.unsqueeze(-1), self.states + tokens[:, :-1]], -1)
        sequences, count = inputs.shape
        stream = F.embedding(inputs, weights["embedding"]) + self.positions
        for layer in range(self.layers):
            mixed = F.layer_norm(stream, (width,)) @ weights[f"{layer}_attention_in"]
            mixed = mixed.view(sequences, count, 3, self.heads, width // self.heads)
            query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
            read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            stream = stream + read.transpose(1, 2).reshape(sequences, count, width) @ weights[f"{layer}_attention_out"]
            inner = F.relu(F.layer_norm(stream, (width,)) @ weights[f"{layer}_up"])
            stream = stream + inner @ weights[f"{layer}_down"]
        logits = F.layer_norm(stream, (width,)) @ weights["head"] * width**-0.5
        return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def never_ends(states: Tensor, tokens: Tensor) -> Tensor:
    return states


def make() -> TransformerPolicy:
    policy = TransformerPolicy(torch.zeros(REPLICAS, 4, VOCABULARY))
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.parameters:  # replicas that differ, and a head that is not zero
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return policy


def draw(policy: TransformerPolicy, tokens: int) -> Samples:
    generator = torch.Generator().manual_seed(2)
    uniforms = torch.rand(REPLICAS, SEQUENCES, tokens, generator=generator, dtype=torch.float64)
    return policy.sample(torch.arange(SEQUENCES) % 4, never_ends, uniforms, entropies=False)


def recomputed(policy: TransformerPolicy, samples: Samples) -> None:
    """What generation does without a cache: a pass over the prompt and all tokens so far, for every token."""
    for stop in range(GENERATED):
        rows = policy.next_log_probs(samples.states[0, :, 0], samples.tokens[0, :, :stop])
        rows.exp().cumsum(-1, dtype=torch.float64)


def ratio(slow: Callable[[], object], fast: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float, float]:
    """Medians in milliseconds and the median of their ratios, run alternately."""
    pairs = []
    for _ in range(repeats + 1):
        times = []
        for function in (slow, fast):
            start = time.perf_counter()
            function()
            times.append((time.perf_counter() - start) * 1e3)
        pairs.append(times)
    pairs = pairs[1:]  # the first pair warms up
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return medians[0], medians[1], statistics.median(a / b for a, b in pairs)


def main() -> None:
    torch.set_num_threads(1)
    policy = make()
    samples = draw(policy, STEP_TOKENS)
    weights = torch.ones(samples.tokens.shape)
    modules = [Module(policy, replica) for replica in range(REPLICAS)]
    optimisers = [torch.optim.SGD(module.parameters(), lr=RATE) for module in modules]

    def loop() -> Tensor:
        found = []
        for replica, (module, optimiser) in enumerate(zip(modules, optimisers, strict=True)):
            log_probs = module(samples.states[replica, :, 0], samples.tokens[replica])
            optimiser.zero_grad()
            (-log_probs).sum().backward()
            optimiser.step()
            found.append(log_probs.detach())
        return torch.stack(found)

    def stacked() -> Tensor:
        log_probs, _ = policy.evaluate(samples, entropies=False)
        for parameter, gradient in zip(policy.parameters, policy.gradient(samples, weights, None), strict=True):
            parameter.add_(gradient, alpha=RATE)
        return log_probs

    difference = float((loop() - stacked()).abs().max())
    assert difference < 1e-5, difference
    slow, fast, gain = ratio(loop, stacked)
    print(f"step, {REPLICAS} replicas x {SEQUENCES} sequences x {STEP_TOKENS} tokens, width {policy.width}")
    print(f"  loop over modules {slow:8.1f} ms   stacked {fast:8.1f} ms   ratio {gain:5.1f}   (wanted: 1.5)")

    long = draw(policy, GENERATED)
    recent, _ = policy.evaluate(long, entropies=False)
    difference = float((recent - long.log_probs).abs().max())
    assert difference < 1e-5, difference
    slow, fast, gain = ratio(lambda: recomputed(policy, long), lambda: draw(policy, GENERATED), repeats=3)
    print(f"generation of {GENERATED} tokens, {REPLICAS} replicas x {SEQUENCES} sequences")
    print(f"  full recompute    {slow:8.1f} ms   cached  {fast:8.1f} ms   ratio {gain:5.1f}   (wanted: 5)")
    print(f"  largest difference of a log-probability from the full forward pass: {difference:.1e}")


if __name__ == "__main__":
    main()
