"""An oracle that knows no dynamic programming: every response written out, every sum taken over the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from envs.automaton import Automaton


@dataclass(frozen=True)
class Responses:
    """Every response to every prompt, found by walking the transition table token by token."""

    spec: Automaton
    prompts: list[int]
    tokens: list[tuple[int, ...]]
    # Flat transition numbers state * V + token of each response, filled up with S * V.
    steps: Tensor

    def log_probs(self, log_policy: Tensor) -> Tensor:
        """Log-probability of each response given its prompt, `(..., Y)`; differentiable."""
        flat = log_policy.flatten(-2)
        padded = torch.cat([flat, flat.new_zeros(*flat.shape[:-1], 1)], -1)
        return padded[..., self.steps].sum(-1)

    def endings(self, table: Tensor) -> Tensor:
        """A terminal table at the last transition of each response, `(..., Y)`."""
        last = (self.steps < self.spec.states * self.spec.vocabulary).sum(-1) - 1
        return table.flatten(-2)[..., self.steps.gather(-1, last.unsqueeze(-1)).squeeze(-1)]

    def lengths(self) -> Tensor:
        return torch.tensor([len(tokens) for tokens in self.tokens], dtype=torch.float64)

    def per_prompt(self, values: Tensor) -> Tensor:
        """Sum over the responses of each prompt, `(..., P)`."""
        prompts = torch.tensor(self.prompts)
        return torch.stack([values[..., prompts == p].sum(-1) for p in range(self.spec.prompts)], -1)

    def mean(self, values: Tensor) -> Tensor:
        """Sum over responses, mean over prompts, `(...)`."""
        return values.sum(-1) / self.spec.prompts


def enumerate_responses(spec: Automaton) -> Responses:
    table = spec.transitions.tolist()
    prompts, tokens, steps = [], [], []
    for prompt, start in enumerate(spec.initial_states.tolist()):
        stack: list[tuple[int, tuple[int, ...], list[int]]] = [(start, (), [])]
        while stack:
            state, said, path = stack.pop()
            for token, following in enumerate(table[state]):
                walked = [*path, state * spec.vocabulary + token]
                if following < 0:
                    prompts.append(prompt)
                    tokens.append((*said, token))
                    steps.append(walked)
                else:
                    stack.append((following, (*said, token), walked))
    longest = max(map(len, steps))
    blank = spec.states * spec.vocabulary
    padded = torch.tensor([walked + [blank] * (longest - len(walked)) for walked in steps])
    return Responses(spec, prompts, tokens, padded)


@pytest.fixture
def enumerated() -> Callable[[Automaton], Responses]:
    return enumerate_responses


@pytest.fixture
def random_policy() -> Callable[..., Tensor]:
    """Log-softmax of N(0, 1) logits for a spec, with any leading dimensions."""

    def draw(spec: Automaton, *shape: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(*shape, spec.states, spec.vocabulary, dtype=torch.float64, generator=generator)
        return logits.log_softmax(-1)

    return draw
