"""What a training loop asks of a policy, and what a policy returns when it samples.

Legend for shapes: `R` replicas, `B` sequences, `T` tokens, `S` automaton states, `V` vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from testbed.errors import ConfigError
from testbed.registry import Registry, parse_call

__all__ = ["Policy", "Samples", "Step", "make_policy", "policies", "policy_names"]

Step = Callable[[Tensor, Tensor], Tensor]
"""(states, tokens) to next states, negative where the episode ends."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Sampled responses.

    Attributes:
        states: int64 `(R, B, T)`, the automaton state each token was drawn in; 0 where masked.
        tokens: int64 `(R, B, T)`; 0 where masked.
        mask: bool `(R, B, T)`, True for tokens of the response.
        log_probs: float `(R, B, T)`, natural log-probability of each token under the policy that drew it.
        entropies: float `(R, B, T)`, nats, of the policy that drew the token; `None` unless asked for.
        final_states: int64 `(R, B)`, the state of the last token of each response.
        final_tokens: int64 `(R, B)`, that token.
    """

    states: Tensor
    tokens: Tensor
    mask: Tensor
    log_probs: Tensor
    entropies: Tensor | None
    final_states: Tensor
    final_tokens: Tensor


class Policy(ABC):
    """A distribution over the next token, its parameters, and the gradient of both with respect to them.

    Every tensor has a leading replica dimension and replicas never touch each other.
    """

    parameters: list[Tensor]
    """Tensors `(R, …)`; an optimiser changes them in place."""

    @abstractmethod
    def sample(self, initial_states: Tensor, step: Step, uniforms: Tensor, *, entropies: bool) -> Samples:
        """Draw responses.

        Args:
            initial_states: int64 `(B,)`, the same for every replica.
            step: the automaton.
            uniforms: float64 `(R, B, T)` in [0, 1), the only randomness used; T is the horizon.
            entropies: whether to return entropies.
        """

    @abstractmethod
    def evaluate(self, samples: Samples, *, entropies: bool) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities `(R, B, T)` of the sampled tokens under the current parameters, and the entropies there."""

    @abstractmethod
    def gradient(self, samples: Samples, log_prob_weights: Tensor, entropy_weights: Tensor | None) -> Sequence[Tensor]:
        """d(Σ w·log p + Σ v·H)/d parameters, one tensor per entry of `parameters`.

        Args:
            samples: those of the last call of `evaluate`.
            log_prob_weights: w, `(R, B, T)`, 0 where masked.
            entropy_weights: v, `(R, B, T)`, or `None` for no entropy term.
        """

    @abstractmethod
    def snapshot(self) -> Self:
        """A copy whose parameters no longer change with this one's."""

    def log_policy(self) -> Tensor | None:
        """float `(R, S, V)`, log-probabilities in every automaton state; `None` for a policy that sees more than it."""
        return None


policies: Registry[Callable[..., Policy]] = Registry("model", package="models")


def policy_names() -> list[str]:
    """Every registered policy, sorted."""
    return policies.names()


def make_policy(name: str, logits: Tensor, **parameters: Any) -> Policy:
    """A policy by name or `name(key=value,…)` that starts as close to `logits` as it can.

    Args:
        name: a registered name.
        logits: float `(R, S, V)`, the initial policy in every automaton state.
        parameters: settings of that policy.

    Raises:
        UnknownNameError: no such policy.
        ConfigError: no such setting.
    """
    base, written = parse_call(name)
    builder = policies[base]
    try:
        return builder(logits, **written, **parameters)
    except TypeError as error:
        raise ConfigError(f"model {base}: {error}") from error
