"""The one specification every toy environment is made of: a finite, layered automaton.

A prompt picks an initial state; a token moves the automaton along its transition table; the transition that
leaves the automaton pays the reward. From this one table come the batched sampler below, the gymnasium
environment (`envs.gym`) and the exact solver (`envs.exact`), so the ground truth cannot drift from what is
sampled. Nothing here knows what a policy or an objective is.

Legend for shapes: `R` any leading replica dimensions, `S` states, `V` vocabulary, `P` prompts, `B` sequences.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from testbed.errors import ConfigError

__all__ = [
    "TERMINAL",
    "Automaton",
    "Ending",
    "RewardKind",
    "Tables",
    "Unfolded",
    "check_size",
    "table_generator",
    "unfold",
]

TERMINAL = -1
"""The entry of a transition table that ends the episode."""

MOST_TRANSITIONS = 20_000_000
"""States times tokens of the largest table; the lists of one that is unfolded take about 2.5 GB meanwhile."""

RewardKind = Literal["bernoulli", "gaussian", "deterministic"]


class Tables(NamedTuple):
    """What may differ from seed to seed while the transitions stay the same.

    Attributes:
        rewards: float64 `(S, V)`, expected reward of ending the episode by this transition; only read where
            the transition is `TERMINAL`.
        success: float64 `(S, V)` in [0, 1], probability that ending the episode here counts as correct.
        initial_logits: float64 `(S, V)`, logits of the policy every run starts from.
    """

    rewards: Tensor
    success: Tensor
    initial_logits: Tensor


def table_generator(seed: int) -> np.random.Generator:
    """The stream a seed's tables are drawn from; a salt keeps it apart from other uses of the same seed."""
    return np.random.default_rng((seed, 0x7AB1E5))


@dataclass(frozen=True, eq=False)
class Automaton:
    """A finite automaton with a reward on its terminal transitions.

    States are numbered by depth: all states that need t tokens to reach come before those that need t+1.
    Every state has exactly one depth, so time is part of the state and a tabular policy over states may
    depend on it.

    Raises:
        ConfigError: a table has the wrong shape, a transition leaves the state set or skips a layer, a
            reward is not finite, or a success probability is outside [0, 1]; the message names the field.
    """

    name: str
    """Registered id, such as `ModularSum-v1`."""
    transitions: Tensor
    """int64 `(S, V)`: the next state, or `TERMINAL`."""
    initial_states: Tensor
    """int64 `(P,)`: the state a prompt starts in."""
    rewards: Tensor
    """float64 `(R, S, V)`: see `Tables`."""
    success: Tensor
    """float64 `(R, S, V)`: see `Tables`."""
    initial_logits: Tensor
    """float64 `(R, S, V)`: see `Tables`."""
    reward_kind: RewardKind = "deterministic"
    """How a reward is drawn around its expectation: Bernoulli (0 or 1), Gaussian, or exactly as written."""
    reward_scale: float = 0.0
    """Standard deviation of a Gaussian reward; unused otherwise."""
    draw_tables: Callable[[np.random.Generator], Tables] | None = None
    """Redraws what is random in this environment (`None`: nothing is); see `for_seeds`."""
    parameters: dict[str, object] = field(default_factory=dict)
    """Every parameter `make_spec` built this from, for records and messages."""
    prompt_texts: tuple[str, ...] = ()
    """What a language model reads for each prompt; empty where a prompt is nothing but its number."""
    token_texts: tuple[str, ...] = ()
    """How each token is written; empty where a token is nothing but its number."""
    layers: tuple[slice, ...] = field(init=False)
    """Slices of the states by depth; filled in by the constructor from the transitions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", self._check())

    # -- sizes ---------------------------------------------------------------------------------------------

    @property
    def states(self) -> int:
        """Number of states S."""
        return self.transitions.shape[0]

    @property
    def vocabulary(self) -> int:
        """Number of tokens V."""
        return self.transitions.shape[1]

    @property
    def prompts(self) -> int:
        """Number of prompts P; every prompt is equally likely."""
        return self.initial_states.shape[0]

    @property
    def horizon(self) -> int:
        """The largest number of tokens in a response."""
        return len(self.layers)

    @property
    def replica_shape(self) -> torch.Size:
        """The leading dimensions R of the tables."""
        return self.rewards.shape[:-2]

    # -- use -----------------------------------------------------------------------------------------------

    def for_seeds(self, seeds: Sequence[int]) -> Automaton:
        """The same automaton with one independently drawn set of tables per seed, on a leading dimension.

        Seed i's tables do not depend on which other seeds are asked for.
        """
        if self.draw_tables is None:
            shape = (len(seeds), self.states, self.vocabulary)
            return replace(
                self,
                rewards=self.rewards.expand(shape),
                success=self.success.expand(shape),
                initial_logits=self.initial_logits.expand(shape),
            )
        drawn = [self.draw_tables(table_generator(seed)) for seed in seeds]
        return replace(
            self,
            rewards=torch.stack([tables.rewards for tables in drawn]),
            success=torch.stack([tables.success for tables in drawn]),
            initial_logits=torch.stack([tables.initial_logits for tables in drawn]),
        )

    def to(self, device: torch.device | str) -> Automaton:
        """The same automaton with its tables on a device; itself where they are there already."""
        if self.transitions.device == torch.device(device):
            return self
        other = copy.copy(self)
        # Not `replace`, which would check tables again that have not changed.
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                object.__setattr__(other, item.name, value.to(device))
        return other

    def step(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Next states, `TERMINAL` where the episode ends. Any shape; `states` must not be `TERMINAL`."""
        return self.transitions.view(-1)[torch.add(tokens, states, alpha=self.vocabulary)]

    def draw_rewards(
        self, states: Tensor, tokens: Tensor, uniforms: Tensor, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Rewards of the terminal transitions `(states, tokens)`.

        Args:
            states: int64 `(R, B)`, the last state of each episode.
            tokens: int64 `(R, B)`, the last token.
            uniforms: float `(R, B)` in [0, 1), the only randomness used.
            dtype: of the result; they are drawn in float64 whatever it is.
        """
        index = torch.add(tokens, states, alpha=self.vocabulary)
        means = self.rewards.flatten(-2).gather(-1, index)
        if self.reward_kind == "bernoulli":
            # In place, which leaves numbers and not truth values to convert.
            return means.gt_(uniforms).to(dtype)
        if self.reward_kind == "gaussian":
            # ndtri is the inverse normal distribution function; clamp keeps u = 0 finite.
            noise = torch.special.ndtri(uniforms.clamp(1e-12, 1 - 1e-12).to(means.dtype))
            return (means + self.reward_scale * noise).to(dtype)
        return means.to(dtype)

    def draw_success(self, states: Tensor, tokens: Tensor, uniforms: Tensor) -> Tensor:
        """Whether the episodes that end by `(states, tokens)` count as correct, bool `(R, B)`.

        With the uniforms given to `draw_rewards`, a Bernoulli reward whose expectation is the success
        probability is the success itself.
        """
        index = torch.add(tokens, states, alpha=self.vocabulary)
        return uniforms < self.success.flatten(-2).gather(-1, index)

    # -- construction --------------------------------------------------------------------------------------

    def _check(self) -> tuple[slice, ...]:
        transitions = self.transitions
        if transitions.dim() != 2 or transitions.dtype != torch.int64 or transitions.numel() == 0:
            raise ConfigError(
                f"{self.name}: transitions has shape {tuple(transitions.shape)} and dtype {transitions.dtype}; "
                "expected a non-empty int64 table (states, vocabulary)"
            )
        states, vocabulary = transitions.shape
        outside = (transitions < TERMINAL) | (transitions >= states)
        if outside.any():
            state, token = (int(i) for i in outside.nonzero()[0])
            raise ConfigError(
                f"{self.name}: transitions[{state}, {token}] is {int(transitions[state, token])}; expected a state "
                f"in 0..{states - 1} or TERMINAL ({TERMINAL}). Did you forget a state?"
            )
        initial = self.initial_states
        if initial.dim() != 1 or initial.dtype != torch.int64 or initial.numel() == 0:
            raise ConfigError(
                f"{self.name}: initial_states has shape {tuple(initial.shape)} and dtype {initial.dtype}; "
                "expected int64 (prompts,) with at least one prompt"
            )
        outside = (initial < 0) | (initial >= states)
        if outside.any():
            prompt = int(outside.nonzero()[0])
            raise ConfigError(
                f"{self.name}: initial_states[{prompt}] is {int(initial[prompt])}; expected a state in 0..{states - 1}"
            )
        if self.reward_kind not in get_args(RewardKind):
            raise ConfigError(
                f"{self.name}: reward_kind is {self.reward_kind!r}; expected one of {', '.join(get_args(RewardKind))}"
            )
        if not (math.isfinite(self.reward_scale) and self.reward_scale >= 0):
            raise ConfigError(
                f"{self.name}: reward_scale is {self.reward_scale}; expected a finite number of at least 0"
            )
        for label, table in (
            ("rewards", self.rewards),
            ("success", self.success),
            ("initial_logits", self.initial_logits),
        ):
            if table.shape[-2:] != transitions.shape or table.shape[:-2] != self.rewards.shape[:-2]:
                raise ConfigError(
                    f"{self.name}: {label} has shape {tuple(table.shape)}; expected (..., {states}, {vocabulary}) "
                    "as the transitions, with the same leading replica dimensions for every table"
                )
            if table.dtype != torch.float64:
                raise ConfigError(f"{self.name}: {label} has dtype {table.dtype}; expected torch.float64")
            # Both ends are NaN if any entry is.
            low, high = (float(end) for end in table.aminmax())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ConfigError(f"{self.name}: {label} holds NaN or infinity; every entry must be finite")
            if label == "success" and not 0 <= low <= high <= 1:
                raise ConfigError(f"{self.name}: success holds a value outside [0, 1]; it is a probability")
            if label == "rewards" and self.reward_kind == "bernoulli" and not 0 <= low <= high <= 1:
                raise ConfigError(
                    f"{self.name}: rewards holds a value outside [0, 1]; a Bernoulli reward's expectation is a "
                    "probability"
                )
        for label, texts, count in (
            ("prompt_texts", self.prompt_texts, self.prompts),
            ("token_texts", self.token_texts, self.vocabulary),
        ):
            if texts and len(texts) != count:
                raise ConfigError(f"{self.name}: {label} has {len(texts)} entries; expected {count} or none")
        return self._find_layers()

    def _find_layers(self) -> tuple[slice, ...]:
        """Depth of every state by breadth-first search; checks that states are numbered by depth."""
        depth = torch.full((self.states,), -1)
        frontier = self.initial_states.unique()
        layers: list[slice] = []
        start = 0
        while frontier.numel():
            if (depth[frontier] >= 0).any() or not torch.equal(frontier, torch.arange(start, start + frontier.numel())):
                raise ConfigError(
                    f"{self.name}: transitions must lead from layer to layer and states must be numbered by depth; "
                    f"layer {len(layers)} reaches states {frontier.tolist()[:8]}, expected a block from {start}. "
                    "Put the time step into the state, and drop states no prompt can reach"
                )
            depth[frontier] = len(layers)
            layers.append(slice(start, start + frontier.numel()))
            start += frontier.numel()
            following = self.transitions[frontier]
            # A mark per state: sorting the transitions of a large layer would take longer.
            reached = torch.zeros(self.states, dtype=torch.bool)
            reached[following[following != TERMINAL]] = True
            frontier = reached.nonzero().squeeze(-1)
        if start != self.states:
            raise ConfigError(
                f"{self.name}: {self.states - start} of {self.states} states cannot be reached from any prompt; "
                "drop them from the transitions"
            )
        return tuple(layers)


class Ending(NamedTuple):
    """What a transition that leaves the automaton pays."""

    reward: float
    """Expected reward."""
    success: float
    """Probability that this counts as correct."""


@dataclass(frozen=True, eq=False)
class Unfolded:
    """The tables `unfold` found; the fields are those of `Automaton`."""

    keys: tuple[Any, ...]
    """The description of every state, in the order of their numbers."""
    transitions: Tensor
    """int64 `(S, V)`."""
    initial_states: Tensor
    """int64 `(P,)`."""
    rewards: Tensor
    """float64 `(S, V)`."""
    success: Tensor
    """float64 `(S, V)`."""


def check_size(found: str, transitions: int, parameters: str) -> None:
    """Refuse a table before memory is asked for it.

    Args:
        found: what would be made, for the message.
        transitions: states times tokens.
        parameters: what to lower, for the message.

    Raises:
        ConfigError: there would be more than 20 million transitions.
    """
    if transitions > MOST_TRANSITIONS:
        raise ConfigError(f"{found}; expected at most {MOST_TRANSITIONS:,} transitions in all. Lower {parameters}")


def unfold(
    prompts: Sequence[Hashable], vocabulary: int, step: Callable[[Any, int, int], Hashable | Ending]
) -> Unfolded:
    """Number the states that a description reaches, layer by layer.

    Two paths of the same length that arrive at equal keys share a state; paths of different length never do.

    Args:
        prompts: the key each prompt starts from.
        vocabulary: number of tokens V.
        step: maps `(key, token, depth)` to the next key, or to an `Ending`.

    Raises:
        ConfigError: the table would have more than 20 million transitions.

    >>> echo = unfold(["start"], 2, lambda key, token, depth: Ending(float(token), 0.0) if depth else token)
    >>> echo.keys, echo.transitions.tolist(), echo.rewards[1].tolist()
    (('start', 0, 1), [[1, 2], [-1, -1], [-1, -1]], [0.0, 1.0])
    """
    layer = list(dict.fromkeys(prompts))
    number = {key: index for index, key in enumerate(layer)}
    initial_states = [number[key] for key in prompts]
    keys: list[Hashable] = []
    transitions: list[list[int]] = []
    rewards: list[list[float]] = []
    success: list[list[float]] = []
    depth = 0
    while layer:
        keys += layer
        check_size(
            f"after {depth} tokens there are {len(keys):,} states with {vocabulary} tokens each",
            len(keys) * vocabulary,
            "its length, vocabulary or number of prompts",
        )
        following: dict[Hashable, int] = {}
        for key in layer:
            row = [step(key, token, depth) for token in range(vocabulary)]
            transitions.append(
                [
                    TERMINAL if isinstance(entry, Ending) else len(keys) + following.setdefault(entry, len(following))
                    for entry in row
                ]
            )
            rewards.append([entry.reward if isinstance(entry, Ending) else 0.0 for entry in row])
            success.append([entry.success if isinstance(entry, Ending) else 0.0 for entry in row])
        layer = list(following)
        depth += 1
    return Unfolded(
        keys=tuple(keys),
        transitions=torch.tensor(transitions),
        initial_states=torch.tensor(initial_states),
        rewards=torch.tensor(rewards, dtype=torch.float64),
        success=torch.tensor(success, dtype=torch.float64),
    )
