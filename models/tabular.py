"""A softmax with its own logits in every automaton state: the policy without interference."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.policy import EXACT, Distortion, Policy, Samples, Step, Weigh, kappas_of, policies

__all__ = ["StatePolicy", "TabularPolicy"]

_VECTOR = 64
"""A multiple of the numbers that a processor's loop takes at a time."""


class StatePolicy(Policy):
    """π(v|s) = softmax(z_s)_v, however the table z `(R, S, V)` comes from the parameters.

    The gradient with respect to z is written out: d log π(a|s)/dz_s = e_a - π_s and dH_s/dz_s = -π_s·(log π_s + H_s),
    so a training loop needs automatic differentiation only for its objective.
    """

    has_fused_path = True
    _memory: _Memory | None = None

    @abstractmethod
    def table(self) -> Tensor:
        """z, float `(R, S, V)`."""

    @abstractmethod
    def chain(self, table_gradient: Tensor) -> Sequence[Tensor]:
        """The gradient of the parameters for one of z, `(R, S, V)`."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy gets buffers of its own.
        return {name: value for name, value in vars(self).items() if name != "_memory"}

    def log_policy(self) -> Tensor:
        """Float `(R, S, V)`."""
        return torch.log_softmax(self.table(), -1)

    def sample(
        self,
        initial_states: Tensor,
        step: Step,
        uniforms: Tensor,
        *,
        entropies: bool,
        prefix: Samples | None = None,
        distortion: Distortion = EXACT,
    ) -> Samples:
        """Inverse-distribution-function sampling, all replicas and sequences at once."""
        replicas, _, vocabulary = self.shape
        memory = self._current()
        if distortion is EXACT:
            log_policy, policy = memory.log_policy, memory.policy
        else:
            log_policy = torch.log_softmax(distortion.of_table(self.table()), -1)
            policy = log_policy.exp()
        cumulative = memory.cumulative.copy_(policy).cumsum_(-1).view(replicas, -1)
        start = memory.start(initial_states)
        if prefix is None:
            written = 0
            responses = _Responses(start.states, start.alive, [], [], [], None)
        else:
            written = prefix.tokens.shape[-1]
            current = step(prefix.final_states, prefix.final_tokens)
            responses = _Responses(
                current.clamp(min=0),
                current >= 0,
                [*prefix.states.unbind(-1)],
                [*prefix.tokens.unbind(-1)],
                [*prefix.mask.unbind(-1)],
                (prefix.final_states, prefix.final_tokens),
            )
        rows = start.rows if prefix is None else responses.here * vocabulary
        responses.write(cumulative, rows, step, uniforms[..., written:], vocabulary)
        states, tokens, mask = responses.states, responses.tokens, responses.mask
        all_states, all_tokens = _columns(states), _columns(tokens)
        # One tensor throughout a run of single tokens: what depends on the mask alone need not be found out again.
        all_mask = start.column if len(mask) == 1 and mask[0] is start.alive else _columns(mask)
        index = torch.add(all_tokens, all_states, alpha=vocabulary)
        log_probs = _take(log_policy.flatten(-2), index)
        chosen = None
        if entropies:
            entropy = memory.entropy() if distortion is EXACT else _entropy(log_policy, policy)
            chosen = _take(entropy, all_states)
        if prefix is not None:
            log_probs[..., :written] = prefix.log_probs
            if chosen is not None and prefix.entropies is not None:
                chosen[..., :written] = prefix.entropies
        assert responses.finals is not None
        samples = Samples(all_states, all_tokens, all_mask, log_probs, chosen, *responses.finals)
        memory.locate(samples, index)
        memory.drawn = samples if distortion is EXACT and prefix is None else None
        return samples

    def evaluate(self, samples: Samples, *, entropies: bool) -> tuple[Tensor, Tensor | None]:
        """Gathers from the table, unless it is the one that `samples` were drawn from."""
        memory = self._current()
        if memory.drawn is samples and (samples.entropies is not None or not entropies):
            return samples.log_probs, samples.entropies if entropies else None
        index, _ = memory.locate(samples)
        log_probs = memory.flat_log_policy.gather(-1, index).view(samples.tokens.shape)
        return log_probs, _take(memory.entropy(), samples.states) if entropies else None

    def kappas(self, samples: Samples) -> Tensor:
        """One number a state, gathered."""
        return _take(kappas_of(self._current().log_policy), samples.states)

    def gradient(self, samples: Samples, log_prob_weights: Tensor, entropy_weights: Tensor | None) -> Sequence[Tensor]:
        """Scatters the weights back into a table, which the next call overwrites, and on to the parameters."""
        assert self._memory is not None
        memory = self._memory
        index, states = memory.locate(samples)
        memory.flat_gradient.zero_().scatter_add_(-1, index, log_prob_weights.flatten(-2))
        # A dense sum is cheaper than a second scatter.
        per_state = memory.gradient.sum(-1, keepdim=True)
        gradient = memory.gradient.addcmul_(memory.policy, per_state, value=-1)
        if entropy_weights is not None:
            per_state = (
                per_state.zero_().squeeze(-1).scatter_add_(-1, states, entropy_weights.flatten(-2)).unsqueeze(-1)
            )
            gradient -= per_state * memory.policy * (memory.log_policy + memory.entropy().unsqueeze(-1))
        return self.chain(gradient)

    def fused_sample(
        self, initial_states: Tensor, step: Step, uniforms: Tensor, *, entropies: bool
    ) -> tuple[Tensor | None, ...]:
        """The same softmax, search and gathers, without buffers."""
        replicas, _, vocabulary = self.shape
        log_policy = torch.log_softmax(self.table(), -1)
        policy = log_policy.exp()
        here = initial_states.expand(replicas, -1)
        responses = _Responses(here, torch.ones_like(here, dtype=torch.bool), [], [], [], None)
        cumulative = policy.double().cumsum(-1).view(replicas, -1)
        responses.write(cumulative, here * vocabulary, step, uniforms, vocabulary)
        assert responses.finals is not None
        states, tokens, mask = map(_columns, (responses.states, responses.tokens, responses.mask))
        log_probs = _take(log_policy.flatten(-2), tokens + states * vocabulary)
        entropy = _take(_entropy(log_policy, policy), states) if entropies else None
        return states, tokens, mask, log_probs, entropy, *responses.finals

    def places(self, samples: Samples) -> tuple[Tensor, ...]:
        """Positions in a flattened table, and states; int64 `(R, B·T)` each."""
        return self._buffers().locate(samples)

    def fused_gradient(self, places: tuple[Tensor, ...], weigh: Weigh, *, entropies: bool) -> Sequence[Tensor]:
        """The same softmax, gathers, scatters and sums, without buffers."""
        index, states = places
        log_policy = torch.log_softmax(self.table(), -1)
        policy = log_policy.exp()
        entropy = _entropy(log_policy, policy) if entropies else None
        weights, entropy_weights = weigh(
            log_policy.flatten(-2).gather(-1, index), None if entropy is None else entropy.gather(-1, states)
        )
        scattered = torch.zeros_like(policy).flatten(-2).scatter_add(-1, index, weights).view_as(policy)
        gradient = scattered - policy * scattered.sum(-1, keepdim=True)
        if entropy is not None and entropy_weights is not None:
            per_state = torch.zeros_like(entropy).scatter_add(-1, states, entropy_weights).unsqueeze(-1)
            gradient = gradient - per_state * policy * (log_policy + entropy.unsqueeze(-1))
        return self.chain(gradient)

    def _current(self) -> _Memory:
        """The table's softmax, recomputed unless nothing has written to the parameters since the last time."""
        memory = self._buffers()
        # Every operation in place raises a tensor's version, an optimiser's step included: the first update after a
        # rollout finds the softmax that the rollout was drawn from.
        versions = [parameter._version for parameter in self.parameters]
        if memory.versions != versions:
            memory.fill(self.table(), versions)
        return memory

    def _buffers(self) -> _Memory:
        if self._memory is None:
            self._memory = _Memory(self.shape, self.parameters[0])
        return self._memory


class _Responses:
    """Responses that are being written.

    Args:
        here: int64 `(R, B)`, the states that the next tokens are drawn in.
        alive: bool `(R, B)`, which responses go on.
        states: so far, one `(R, B)` a position; likewise `tokens` and `mask`.
        finals: state and token that every response would end with now; `None` before the first token, when all go on.
    """

    def __init__(
        self,
        here: Tensor,
        alive: Tensor,
        states: list[Tensor],
        tokens: list[Tensor],
        mask: list[Tensor],
        finals: tuple[Tensor, Tensor] | None,
    ) -> None:
        self.here, self.alive = here, alive
        self.states, self.tokens, self.mask = states, tokens, mask
        self.finals = finals

    def write(self, cumulative: Tensor, rows: Tensor, step: Step, uniforms: Tensor, vocabulary: int) -> None:
        """Draw one token for each column of `uniforms`; `rows` is where those of the first begin in `cumulative`."""
        here, alive = self.here, self.alive
        for position, numbers in enumerate(uniforms.unbind(-1), start=1):
            drawn = _search(cumulative, rows, numbers, vocabulary)
            if self.finals is None:
                self.finals = here, drawn
            else:
                here, drawn = here * alive, drawn * alive
                state, token = self.finals
                self.finals = torch.where(alive, here, state), torch.where(alive, drawn, token)
            self.states.append(here)
            self.tokens.append(drawn)
            self.mask.append(alive)
            if position < uniforms.shape[-1]:
                current = step(here, drawn)
                alive = alive & (current >= 0)
                here = current.clamp(min=0)
                rows = here * vocabulary


class _Memory:
    """What a policy computed last, in buffers it reuses: a fresh table costs more than the arithmetic in it."""

    def __init__(self, shape: torch.Size, like: Tensor) -> None:
        self.log_policy, self.gradient = like.new_empty(shape), like.new_empty(shape)
        # torch computes a power of 2 differently in what is left over after whole vectors. With none left over, no
        # number depends on how many replicas stand beside it.
        self._whole_vectors = like.new_zeros(-(-shape.numel() // _VECTOR) * _VECTOR)
        self.policy = self._whole_vectors[: shape.numel()].view(shape)
        self.cumulative = like.new_empty(shape, dtype=torch.float64)
        # As a tensor of that dtype it need not be converted every time.
        self._bits_per_nat = like.new_tensor(1 / math.log(2))
        self.flat_log_policy, self.flat_gradient = self.log_policy.flatten(-2), self.gradient.flatten(-2)
        self.versions: list[int] = []
        self.drawn: Samples | None = None
        self._entropy: Tensor | None = None
        self._located: tuple[Samples, Tensor, Tensor] | None = None
        self._start: _Start | None = None

    def fill(self, logits: Tensor, versions: list[int]) -> None:
        """Softmax and its logarithm."""
        torch.log_softmax(logits, -1, out=self.log_policy)
        # A power of 2, because torch computes it in a quarter of the time of a power of e, to the same digits.
        torch.mul(self.log_policy, self._bits_per_nat, out=self.policy)
        self._whole_vectors.exp2_()
        self._entropy, self.drawn, self.versions = None, None, versions

    def entropy(self) -> Tensor:
        """H of every state, nats, `(R, S)`."""
        if self._entropy is None:
            self._entropy = _entropy(self.log_policy, self.policy)
        return self._entropy

    def start(self, initial_states: Tensor) -> _Start:
        """Where responses begin; the same object as long as they begin in the same tensor's states."""
        if self._start is None or self._start.initial_states is not initial_states:
            self._start = _Start(initial_states, self.policy.shape)
        return self._start

    def locate(self, samples: Samples, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Where the tokens of `samples` are in a flattened table, and their states; int64 `(R, B·T)` each.

        Args:
            samples: whose tokens.
            index: the answer as `(R, B, T)`, where the caller has it already.
        """
        if self._located is None or self._located[0] is not samples:
            if index is None:
                index = torch.add(samples.tokens, samples.states, alpha=self.policy.shape[-1])
            self._located = (samples, index.flatten(-2), samples.states.flatten(-2))
        return self._located[1:]


class _Start:
    """The states `(B,)` that responses begin in, for every replica, and where their rows begin in a flattened table."""

    def __init__(self, initial_states: Tensor, shape: torch.Size) -> None:
        self.initial_states = initial_states
        self.states = initial_states.expand(shape[0], -1)
        self.alive = torch.ones_like(self.states, dtype=torch.bool)
        self.column = self.alive.unsqueeze(-1)
        self.rows = self.states * shape[-1]


@policies.register("tabular")
class TabularPolicy(StatePolicy):
    """π(v|s) = softmax(z_s)_v with free logits z, `(R, S, V)`: what is learned in one state changes no other.

    Args:
        logits: float `(R, S, V)`; copied.

    Example:
        >>> policy = TabularPolicy(torch.zeros(1, 1, 4))
        >>> policy.log_policy().exp().tolist()
        [[[0.25, 0.25, 0.25, 0.25]]]
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.detach().clone(memory_format=torch.contiguous_format)
        self.shape = self.logits.shape
        self.parameters = [self.logits]

    def table(self) -> Tensor:
        """The logits."""
        return self.logits

    def chain(self, table_gradient: Tensor) -> Sequence[Tensor]:
        """The gradient itself."""
        return [table_gradient]

    def snapshot(self) -> TabularPolicy:
        """A copy with logits of its own."""
        return TabularPolicy(self.logits)


def _search(cumulative: Tensor, start: Tensor, uniforms: Tensor, vocabulary: int) -> Tensor:
    """How many of the first V-1 entries of each row are at most u: the token that inverts its distribution function.

    By bisection in step for all: no branch depends on the data, which makes it faster than a search one by one.

    Args:
        cumulative: float64 `(R, N)`, distribution functions end to end.
        start: int64 `(R, B)`, where each one's row begins.
        uniforms: float64 `(R, B)`.
        vocabulary: V, the length of a row.
    """
    # Numbers that are not negative are ordered as the integers with the same bits, and an integer comparison in place
    # leaves 0 or 1 in the type that is added.
    ordered, limits = cumulative.view(torch.int64), uniforms.view(torch.int64)
    found = start.clone()
    left = vocabulary - 1
    while left > 0:
        half = (left + 1) // 2
        found.add_(ordered.gather(-1, found + (half - 1)).le_(limits), alpha=half)
        left -= half
    return found.sub_(start)


def _columns(positions: list[Tensor]) -> Tensor:
    """`(R, B)` per position to `(R, B, T)`."""
    return positions[0].unsqueeze(-1) if len(positions) == 1 else torch.stack(positions, -1)


def _take(table: Tensor, index: Tensor) -> Tensor:
    """`table` `(R, N)` at `index` `(R, B, T)`."""
    return table.gather(-1, index.flatten(-2)).view_as(index)


def _entropy(log_policy: Tensor, policy: Tensor) -> Tensor:
    # A token of probability 0 has log-probability -inf and contributes nothing.
    return -(policy * log_policy.clamp(min=torch.finfo(log_policy.dtype).min)).sum(-1)
