"""Environments with responses of several tokens and one reward at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.automaton import Automaton, Ending, Tables, Unfolded, unfold
from envs.catalogue import choice, environment, real, whole
from envs.starting_policy import STARTING_POLICIES, StartingPolicy

__all__ = ["ModularSum"]


@dataclass(frozen=True, kw_only=True)
class SequenceTask(StartingPolicy, ABC):
    """A task described by what each token does to a key; rewards are fixed, the starting policy is drawn per seed."""

    @abstractmethod
    def prompt_keys(self) -> list[Hashable]:
        """The key each prompt starts from."""

    @abstractmethod
    def advance(self, key: Hashable, token: int, depth: int) -> Hashable | Ending:
        """The key after one more token, or what the finished response pays."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Size of the vocabulary, with any special token."""

    @cached_property
    def unfolded(self) -> Unfolded:
        """The tables of the transitions and rewards."""
        return unfold(self.prompt_keys(), self.tokens, self.advance)

    def automaton(self) -> Automaton:
        return self.assemble(self.unfolded.transitions, self.unfolded.initial_states)

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        unfolded = self.unfolded
        logits = self.draw_initial_logits(generator, *unfolded.transitions.shape)
        return Tables(unfolded.rewards, unfolded.success, logits)


@environment("ModularSum-v1")
@dataclass(frozen=True, kw_only=True)
class ModularSum(SequenceTask):
    """Digits whose sum must leave the right remainder: many right answers of one length.

    ## Description
    The response is `length` digits. It is right iff their sum and the number of the prompt leave the same remainder
    when divided by `modulus`.

    ## Action Space
    `Discrete(vocabulary)`: the next digit.

    ## Observation Space
    `Discrete(states + 1)`: the time step, the prompt and the running sum modulo `modulus`, as one number; the
    last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`; the sum is 0.

    ## Reward
    1 with the last digit if the answer is right, else 0.

    ## Episode End
    After `length` digits.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1. If `modulus` divides `vocabulary`, the uniform policy succeeds with probability 1/modulus, and the most
    random optimum is uniform until the last digit: H* = (length - 1) log vocabulary + log(vocabulary / modulus).

    ## What It Is Built to Reveal
    Unnecessary loss of entropy in sequences (H* - H), credit for late tokens, and, with long responses, what
    products of token ratios do.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    prompts: int = whole(4, low=1)
    """Number of prompts."""
    length: int = whole(6, low=1)
    """Digits in a response, T."""
    vocabulary: int = whole(16, low=2)
    """Number of digits V, 0 to V-1."""
    modulus: int = whole(4, low=2)
    """Modulus M."""
    scale: float = real(2.0, low=0.0)
    """Standard deviation of `normal` logits."""
    initial: str = choice("normal", STARTING_POLICIES)
    """Starting policy, see `StartingPolicy`."""

    def check(self) -> None:
        if self.vocabulary < self.modulus:
            raise self.refuse("vocabulary", f"at least the modulus of {self.modulus}, so that every sum can be reached")

    @property
    def tokens(self) -> int:
        return self.vocabulary

    def prompt_keys(self) -> list[Hashable]:
        return [(prompt, 0) for prompt in range(self.prompts)]

    def advance(self, key: Hashable, token: int, depth: int) -> Hashable | Ending:
        prompt, total = key  # type: ignore[misc]
        total = (total + token) % self.modulus
        if depth == self.length - 1:
            right = float(total == prompt % self.modulus)
            return Ending(right, right)
        return (prompt, total)
