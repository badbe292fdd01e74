"""The stacked transformer against an independent single network, its cache, and the figures of its start."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.policy import Episodes, Policy, Samples, make_policy
from models.transformer import TransformerPolicy, sinusoids

Make = Callable[..., Policy]
Draw = Callable[..., Samples]

NAME = "transformer(layers=2,width=8,heads=2)"


def by_hand(policy: TransformerPolicy, replica: int, state: int, tokens: list[int]) -> Tensor:
    """Log-probabilities after a prefix, written out for one replica with loops over heads and positions."""
    weights = {name: weight[replica] for name, weight in policy.weights.items()}
    width, size = policy.width, policy.width // policy.heads

    def normalise(rows: Tensor) -> Tensor:
        centred = rows - rows.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    rows = [state] + [policy.shape[1] + token for token in tokens]
    stream = torch.stack([weights["embedding"][row] for row in rows])
    for position in range(len(rows)):
        for pair in range(width // 2):
            angle = position / 1e4 ** (2 * pair / width)
            stream[position, pair] += math.sin(angle)
            stream[position, pair + width // 2] += math.cos(angle)
    for layer in range(policy.layers):
        mixed = normalise(stream) @ weights[f"{layer}.attention_in"]
        read = torch.zeros_like(stream)
        for head in range(policy.heads):
            columns = slice(head * size, (head + 1) * size)
            query, key, value = (mixed[:, part * width : (part + 1) * width][:, columns] for part in range(3))
            for position in range(len(rows)):
                scores = key[: position + 1] @ query[position] / math.sqrt(size)
                read[position, columns] = scores.softmax(0) @ value[: position + 1]
        stream = stream + read @ weights[f"{layer}.attention_out"]
        stream = stream + (normalise(stream) @ weights[f"{layer}.up"]).clamp(min=0) @ weights[f"{layer}.down"]
    return (normalise(stream)[-1] @ weights["head"] / math.sqrt(width)).log_softmax(-1)


@pytest.mark.parametrize(("state", "tokens"), [(0, []), (1, [2]), (0, [1, 0, 1])])
def test_against_a_network_written_out(state: int, tokens: list[int], make: Make) -> None:
    policy = make(NAME)
    assert isinstance(policy, TransformerPolicy)
    found = policy.next_log_probs(torch.tensor([state]), torch.tensor([tokens], dtype=torch.int64))
    for replica in range(2):
        expected = by_hand(policy, replica, state, tokens)
        torch.testing.assert_close(found[replica, 0], expected, rtol=1e-9, atol=1e-12)


def test_generation_of_64_tokens_reproduces_the_full_forward_in_single_precision() -> None:
    policy = make_policy("transformer", torch.zeros(2, 3, 5))
    for parameter in policy.parameters:
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.3)
    uniforms = torch.rand(2, 4, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    samples = policy.sample(torch.tensor([0, 1, 2, 0]), lambda states, tokens: states, uniforms, entropies=True)
    log_probs, entropies = policy.evaluate(samples, entropies=True)
    assert samples.entropies is not None
    assert entropies is not None
    assert float(samples.log_probs.std()) > 0.1
    assert float((samples.log_probs - log_probs).abs().max()) < 1e-5
    assert float((samples.entropies - entropies).abs().max()) < 1e-5


def test_a_token_does_not_see_the_ones_after_it(make: Make) -> None:
    policy = make(NAME)
    short, long = (
        policy.distributions(samples)[1] if isinstance(policy, TransformerPolicy) else torch.empty(0)
        for samples in (responses([[0, 1, 1]]), responses([[0, 1, 0]]))
    )
    # Row t is the distribution of token t; the responses differ in their last token only.
    assert torch.equal(short, long)
    other = policy.distributions(responses([[1, 1, 1]]))[1]  # type: ignore[attr-defined]
    assert torch.equal(short[:, :, 0], other[:, :, 0])
    assert not torch.allclose(short[:, :, 1:], other[:, :, 1:])


def responses(tokens: list[list[int]]) -> Samples:
    rows = torch.tensor(tokens).expand(2, -1, -1)
    nothing = torch.zeros(rows.shape, dtype=torch.float64)
    mask = torch.ones_like(rows, dtype=torch.bool)
    return Samples(torch.zeros_like(rows), rows, mask, nothing, None, rows[..., 0], rows[..., -1])


def test_it_starts_uniform_and_equal_in_all_replicas() -> None:
    policy = make_policy("transformer(width=8)", torch.zeros(3, 2, 4))
    rows = policy.next_log_probs(torch.tensor([0, 1]), torch.tensor([[0, 3], [1, 2]]))
    torch.testing.assert_close(rows, torch.full((3, 2, 4), -math.log(4)), rtol=1e-6, atol=0)
    for parameter in policy.parameters:
        assert torch.equal(parameter[0], parameter[2])


def test_a_gradient_step_on_a_logit_moves_it_by_the_step_size() -> None:
    # With W = 0 only the head learns. d log p(0)/dz = e_0 - 1/V; logits are h·W/√d and |h|² = d, so after a step η
    # z = η (e_0 - 1/V), as in a table. LayerNorm's epsilon changes |h|² by less than 1e-4 of itself.
    policy = make_policy("transformer(width=8)", torch.zeros(1, 1, 4, dtype=torch.float64))
    samples = Samples(
        torch.zeros(1, 1, 1, dtype=torch.int64),
        torch.zeros(1, 1, 1, dtype=torch.int64),
        torch.ones(1, 1, 1, dtype=torch.bool),
        torch.zeros(1, 1, 1, dtype=torch.float64),
        None,
        torch.zeros(1, 1, dtype=torch.int64),
        torch.zeros(1, 1, dtype=torch.int64),
    )
    policy.evaluate(samples, entropies=False)
    gradients = policy.gradient(samples, torch.ones(1, 1, 1, dtype=torch.float64), None)
    for parameter, gradient in zip(policy.parameters, gradients, strict=True):
        parameter.add_(gradient, alpha=0.5)
    rows = policy.next_log_probs(torch.tensor([0]), torch.empty(1, 0, dtype=torch.int64))[0, 0]
    expected = torch.tensor([0.5 * 0.75, -0.125, -0.125, -0.125], dtype=torch.float64).log_softmax(-1)
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=0)


def test_sinusoids() -> None:
    # Position 3, width 4: frequencies 1 and 1e4^(-2/4) = 0.01.
    expected = torch.tensor([[math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]], dtype=torch.float64)
    torch.testing.assert_close(sinusoids(3, 1, 4), expected, rtol=1e-12, atol=0)


def test_start_reaches_the_initial_policy_the_same_in_every_replica() -> None:
    # A prompt apiece with its own peaked distribution; the states are 0 and 1, and every response is one token.
    logits = torch.tensor([[2.0, 0.0, -1.0], [-1.0, 0.0, 2.0]]).expand(2, 2, 3)
    episodes = Episodes(torch.tensor([0, 1]), lambda states, tokens: torch.full_like(states, -1), 1)
    policy = make_policy("transformer(layers=1,width=16,pretraining=200)", logits, episodes)
    rows = policy.next_log_probs(torch.tensor([0, 1]), torch.empty(2, 0, dtype=torch.int64))
    assert float((logits.softmax(-1) * (logits.log_softmax(-1) - rows)).sum(-1).max()) < 1e-2
    assert torch.equal(rows[0], rows[1])
