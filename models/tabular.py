"""A softmax with its own logits in every automaton state: the policy without interference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.policy import Policy, Samples, Step, policies

__all__ = ["TabularPolicy"]


@policies.register("tabular")
class TabularPolicy(Policy):
    """π(v|s) = softmax(z_s)_v with free logits z, `(R, S, V)`.

    The gradient is written out: d log π(a|s)/dz_s = e_a - π_s and dH_s/dz_s = -π_s·(log π_s + H_s), so a training loop
    needs automatic differentiation only for its objective.

    Args:
        logits: float `(R, S, V)`; copied.

    Example:
        >>> policy = TabularPolicy(torch.zeros(1, 1, 4))
        >>> policy.log_policy().exp().tolist()
        [[[0.25, 0.25, 0.25, 0.25]]]
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.detach().clone(memory_format=torch.contiguous_format)
        self.parameters = [self.logits]
        self._log_policy: Tensor | None = None
        self._policy: Tensor | None = None
        self._entropy: Tensor | None = None

    def log_policy(self) -> Tensor:
        """float `(R, S, V)`."""
        return torch.log_softmax(self.logits, -1)

    def snapshot(self) -> TabularPolicy:
        """A copy with logits of its own."""
        return TabularPolicy(self.logits)

    def sample(self, initial_states: Tensor, step: Step, uniforms: Tensor, *, entropies: bool) -> Samples:
        """Inverse-distribution-function sampling, all replicas and sequences at once.

        The distribution functions of all states of a replica are laid end to end, state s occupying [s, s+1), so that
        one sorted search serves every sequence whatever state it is in.
        """
        replicas, states_count, vocabulary = self.logits.shape
        _, sequences, horizon = uniforms.shape
        log_policy = self.log_policy()
        cumulative = log_policy.double().exp_().cumsum(-1)
        cumulative[..., -1] = 1.0  # rounding must not leave a gap at the end of a state's interval
        cumulative += torch.arange(states_count, dtype=torch.float64).unsqueeze(-1)
        cumulative = cumulative.view(replicas, -1)

        current = initial_states.expand(replicas, sequences)
        shape = (replicas, sequences, horizon)
        states = torch.zeros(shape, dtype=torch.int64)
        tokens = torch.zeros(shape, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.bool)
        final_states = current.clone()
        final_tokens = torch.zeros_like(final_states)
        for position in range(horizon):
            alive = current >= 0
            here = current.clamp(min=0)
            flat = torch.searchsorted(cumulative, uniforms[..., position] + here, right=True)
            drawn = (flat - here * vocabulary).clamp_(0, vocabulary - 1)
            states[..., position] = here * alive
            tokens[..., position] = drawn * alive
            mask[..., position] = alive
            final_states = torch.where(alive, here, final_states)
            final_tokens = torch.where(alive, drawn, final_tokens)
            current = torch.where(alive, step(here, drawn), current)
        log_probs = _take(log_policy.flatten(-2), states * vocabulary + tokens)
        chosen = _take(_entropy(log_policy, log_policy.exp()), states) if entropies else None
        return Samples(states, tokens, mask, log_probs, chosen, final_states, final_tokens)

    def evaluate(self, samples: Samples, *, entropies: bool) -> tuple[Tensor, Tensor | None]:
        """Gathers from the table."""
        log_policy = self.log_policy()
        policy = log_policy.exp()
        entropy = _entropy(log_policy, policy) if entropies else None
        self._log_policy, self._policy, self._entropy = log_policy, policy, entropy
        log_probs = _take(log_policy.flatten(-2), samples.states * self.logits.shape[-1] + samples.tokens)
        return log_probs, None if entropy is None else _take(entropy, samples.states)

    def gradient(self, samples: Samples, log_prob_weights: Tensor, entropy_weights: Tensor | None) -> Sequence[Tensor]:
        """Scatters the weights back into the table."""
        assert self._policy is not None
        replicas, states_count, vocabulary = self.logits.shape
        weights = log_prob_weights.flatten(-2)
        states = samples.states.flatten(-2)
        flat = states * vocabulary + samples.tokens.flatten(-2)
        gradient = weights.new_zeros(replicas, states_count * vocabulary).scatter_add_(-1, flat, weights)
        gradient = gradient.view_as(self.logits)
        per_state = weights.new_zeros(replicas, states_count).scatter_add_(-1, states, weights)
        gradient -= per_state.unsqueeze(-1) * self._policy
        if entropy_weights is not None:
            assert self._log_policy is not None
            assert self._entropy is not None
            per_state = torch.zeros_like(per_state).scatter_add_(-1, states, entropy_weights.flatten(-2))
            surplus = self._log_policy + self._entropy.unsqueeze(-1)
            gradient -= per_state.unsqueeze(-1) * self._policy * surplus
        return [gradient]


def _take(table: Tensor, index: Tensor) -> Tensor:
    """`table` `(R, N)` at `index` `(R, B, T)`."""
    return table.gather(-1, index.flatten(-2)).view_as(index)


def _entropy(log_policy: Tensor, policy: Tensor) -> Tensor:
    # A token of probability 0 has log-probability -inf and contributes nothing.
    return -(policy * log_policy.clamp(min=torch.finfo(log_policy.dtype).min)).sum(-1)
