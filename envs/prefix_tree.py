"""Exact results for policies that see the whole prefix, such as a transformer.

A tree of all prefixes is itself an automaton: one state per prefix, every path its own. `unroll` builds it,
`PrefixTree.tabulate` asks a policy for the distribution after every prefix, once each and in batches of one depth,
and everything in `envs.exact` then holds for the resulting table. The cost grows with the number of prefixes, about
vocabulary^(length-1); tabular policies need none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs import exact
from envs.automaton import TERMINAL, Automaton
from testbed.errors import BatchError, ConfigError

__all__ = ["ENTRY_LIMIT", "PrefixPolicy", "PrefixTree", "count_responses", "evaluate", "sequence_tv", "unroll"]

ENTRY_LIMIT = 2**23
"""Most table entries (replicas times prefixes times vocabulary) that a tree may have: 64 MiB a table."""

PrefixPolicy = Callable[[Tensor, Tensor], Tensor]
"""Maps prompts int64 `(N,)` and prefixes int64 `(N, t)` to log-probabilities of the next token, float `(..., N, V)`."""


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """All prefixes of all prompts, each a state of `spec`."""

    spec: Automaton
    """The tree as an automaton of N states."""
    origins: Tensor
    """int64 `(N,)`: the state of the original automaton a prefix leads to."""
    prompts: Tensor
    """int64 `(N,)`: the prompt of a prefix."""
    prefixes: tuple[Tensor, ...]
    """For each depth t the prefixes of t tokens, int64 `(N_t, t)`, in the order of the states."""

    def tabulate(self, policy: PrefixPolicy) -> Tensor:
        """Log-probabilities after every prefix, float64 `(..., N, V)`; the policy is called once per depth.

        Raises:
            BatchError: the policy returns a table of the wrong shape.
        """
        rows = []
        with torch.no_grad():
            for layer, prefixes in zip(self.spec.layers, self.prefixes, strict=True):
                row = policy(self.prompts[layer], prefixes)
                expected = (prefixes.shape[0], self.spec.vocabulary)
                if row.shape[-2:] != expected:
                    raise BatchError(
                        f"the policy returned shape {tuple(row.shape)} for {expected[0]} prefixes of "
                        f"{prefixes.shape[1]} tokens; expected (..., {expected[0]}, {expected[1]}), log-probabilities "
                        "of the next token"
                    )
                rows.append(row.double())
        return torch.cat(rows, -2)

    def lift(self, table: Tensor) -> Tensor:
        """A table over the original states as one over prefixes, `(..., S, V)` to `(..., N, V)`.

        Raises:
            BatchError: the table has the wrong shape.
        """
        # Every state is reached by some prefix.
        expected = (int(self.origins.max()) + 1, self.spec.vocabulary)
        if table.shape[-2:] != expected:
            raise BatchError(
                f"the table has shape {tuple(table.shape)}; expected (..., {expected[0]}, {expected[1]}), "
                "states by tokens"
            )
        return table.index_select(-2, self.origins)


def count_responses(spec: Automaton) -> int:
    """Number of different responses, summed over prompts.

    >>> from envs import make_spec
    >>> count_responses(make_spec("ModularSum-v1", prompts=2, length=3, vocabulary=4, modulus=2))  # 2 · 4³
    128
    """
    # Python integers: vocabulary^length soon exceeds 64 bits.
    counts = np.zeros(spec.states + 1, dtype=object)
    counts[-1] = 1
    for layer in reversed(spec.layers):
        counts[layer] = counts[spec.transitions[layer].numpy()].sum(1)
    return int(counts[spec.initial_states.numpy()].sum())


def count_prefixes(spec: Automaton) -> int:
    """Number of different unfinished responses, the empty one of each prompt included."""
    counts = np.zeros(spec.states + 1, dtype=object)
    for layer in reversed(spec.layers):
        counts[layer] = 1 + counts[spec.transitions[layer].numpy()].sum(1)
    return int(counts[spec.initial_states.numpy()].sum())


def unroll(spec: Automaton) -> PrefixTree:
    """The tree of all prefixes.

    Raises:
        ConfigError: it would not fit; the message says how many responses there are and what to use instead.
    """
    entries = count_prefixes(spec) * spec.vocabulary * spec.replica_shape.numel()
    if entries > ENTRY_LIMIT:
        raise ConfigError(
            f"{spec.name} has {count_responses(spec):,} responses; a tree of their prefixes needs {entries:,} table "
            f"entries, more than the limit of {ENTRY_LIMIT:,}. For a tabular policy use envs.exact, whose cost does "
            "not depend on the number of responses; for one that sees the whole prefix choose a smaller length or "
            "vocabulary, or sample"
        )
    origins = [spec.initial_states]
    prompts = [torch.arange(spec.prompts)]
    prefixes = [torch.empty(spec.prompts, 0, dtype=torch.int64)]
    transitions = []
    states = spec.prompts
    while True:
        following = spec.transitions[origins[-1]]
        parents, tokens = (following != TERMINAL).nonzero(as_tuple=True)
        rows = torch.full_like(following, TERMINAL)
        rows[parents, tokens] = states + torch.arange(parents.numel())
        transitions.append(rows)
        if not parents.numel():
            break
        states += parents.numel()
        origins.append(following[parents, tokens])
        prompts.append(prompts[-1][parents])
        prefixes.append(torch.cat([prefixes[-1][parents], tokens.unsqueeze(-1)], -1))
    origin = torch.cat(origins)
    tree = Automaton(
        name=f"{spec.name} as a tree",
        transitions=torch.cat(transitions),
        initial_states=torch.arange(spec.prompts),
        rewards=spec.rewards.index_select(-2, origin),
        success=spec.success.index_select(-2, origin),
        initial_logits=spec.initial_logits.index_select(-2, origin),
        reward_kind=spec.reward_kind,
        reward_scale=spec.reward_scale,
        parameters=spec.parameters,
        prompt_texts=spec.prompt_texts,
        token_texts=spec.token_texts,
    )
    return PrefixTree(tree, origin, torch.cat(prompts), tuple(prefixes))


def evaluate(spec: Automaton, policy: PrefixPolicy) -> exact.Evaluation:
    """Exact expectations under a policy that sees the whole prefix; see `envs.exact.evaluate`.

    For several quantities of several policies, `unroll` once and use `envs.exact` on the tables.

    Raises:
        ConfigError: the tree would not fit.
        BatchError: the policy returns a table of the wrong shape, or a row does not sum to one.

    >>> from envs import make_spec
    >>> spec = make_spec("Lock-v1", length=3, vocabulary=2)
    >>> uniform = lambda prompts, prefixes: torch.full((len(prompts), 2), 0.5).log()
    >>> round(evaluate(spec, uniform).value, 6)  # 2^-3
    0.125
    """
    tree = unroll(spec)
    return exact.evaluate(tree.spec, tree.tabulate(policy))


def sequence_tv(spec: Automaton, log_p: Tensor, log_q: Tensor) -> float | Tensor:
    """Total variation of whole responses, ½ Σ_y |p(y) - q(y)|, mean over prompts, `(R,)`, in [0, 1].

    Args:
        spec: the environment, small enough for `unroll`.
        log_p: float `(..., S, V)`, normalised log-probabilities of one policy.
        log_q: float `(..., S, V)`, those of the other.

    Raises:
        ConfigError: the tree would not fit.
        BatchError: a table has the wrong shape or a row does not sum to one.
    """
    tree = unroll(spec)
    ends = tree.spec.transitions == TERMINAL
    responses = []
    for table in (log_p, log_q):
        lifted = tree.lift(table.detach().double())
        reached = exact.evaluate(tree.spec, lifted).occupancy
        responses.append(reached.unsqueeze(-1) * lifted.exp() * ends)
    distance = (responses[0] - responses[1]).abs().sum((-2, -1)) / 2
    return distance if distance.dim() else float(distance)
