"""What a training loop asks of a policy, and what a policy returns when it samples.

Legend for shapes: `R` replicas, `B` sequences, `T` tokens, `S` automaton states, `V` vocabulary.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from testbed.errors import ConfigError, shown
from testbed.registry import Registry, parse_call

__all__ = [
    "EXACT",
    "Distortion",
    "Episodes",
    "Policy",
    "Samples",
    "Step",
    "Weigh",
    "kappas_of",
    "make_policy",
    "policies",
    "policy_names",
]

_LARGEST = 1024
"""A toy policy is not wider, deeper or of higher rank."""

Step = Callable[[Tensor, Tensor], Tensor]
"""(states, tokens) to next states, negative where the episode ends."""


Weigh = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""(log-probabilities, entropies) of tokens to the weights of both in a gradient."""


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
        routing: int64 `(R, B, T, L, k)`, the experts each of L layers chose; `None` for a policy without experts.
    """

    states: Tensor
    tokens: Tensor
    mask: Tensor
    log_probs: Tensor
    entropies: Tensor | None
    final_states: Tensor
    final_tokens: Tensor
    routing: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Episodes:
    """What a policy may learn about an environment before training: where responses start and how they unfold.

    Attributes:
        initial_states: int64 `(P,)`, the state of every prompt.
        step: the automaton.
        horizon: the largest number of tokens in a response.
    """

    initial_states: Tensor
    step: Step
    horizon: int


@dataclass(frozen=True, eq=False)
class Distortion:
    """What sets a sampler's arithmetic apart from the trainer's; nothing by default.

    Attributes:
        noise: float `(R, S, V)`, nats, added to the log-probabilities of a state before they are normalised again.
        dtype: type the logits are rounded to, after the noise.
        router_noise: float `(R, B, T, L, E)`, added to the router's logits over E experts in each of L layers.
    """

    noise: Tensor | None = None
    dtype: torch.dtype | None = None
    router_noise: Tensor | None = None

    def of_table(self, logits: Tensor) -> Tensor:
        """The sampler's logits for those of every state, `(R, S, V)`."""
        return self._rounded(logits if self.noise is None else logits + self.noise.to(logits.dtype))

    def of_rows(self, logits: Tensor, states: Tensor) -> Tensor:
        """The sampler's logits for those of one row per sequence, `(R, B, V)`, in the states `(R, B)`."""
        if self.noise is not None:
            index = states.unsqueeze(-1).expand(*states.shape, self.noise.shape[-1])
            logits = logits + self.noise.gather(1, index).to(logits.dtype)
        return self._rounded(logits)

    def _rounded(self, logits: Tensor) -> Tensor:
        return logits if self.dtype is None else logits.to(self.dtype).to(logits.dtype)


EXACT = Distortion()
"""A sampler that computes what the trainer computes."""


class Policy(ABC):
    """A distribution over the next token, its parameters, and the gradient of both with respect to them.

    Every tensor has a leading replica dimension and replicas never touch each other.
    """

    shape: torch.Size
    """(R, S, V): replicas, automaton states and vocabulary."""
    parameters: list[Tensor]
    """Tensors `(R, …)`; an optimiser changes them in place."""
    samples_exactly: bool = True
    """Whether `sample` finds the log-probabilities of `evaluate` bit for bit, or only up to rounding."""
    has_fused_path: bool = False
    """Whether `fused_sample` and `fused_gradient` exist."""
    router_shape: tuple[int, int] | None = None
    """(L, E): layers and experts per layer of a policy that routes; `None` for one that does not."""

    @abstractmethod
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
        """Draw responses, or continue them.

        Args:
            initial_states: int64 `(B,)`, the same for every replica.
            step: the automaton.
            uniforms: float64 `(R, B, T)` in [0, 1), the only randomness used; T is the horizon, or less for a
                response that another policy will continue.
            entropies: whether to return entropies.
            prefix: responses whose first tokens are already written, by this or another policy. They are kept as
                they are, with the log-probabilities of whoever wrote them, and the numbers in `uniforms` at their
                positions are not used.
            distortion: how the sampler differs from the policy; the log-probabilities returned are the sampler's.
        """

    @abstractmethod
    def evaluate(self, samples: Samples, *, entropies: bool) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities `(R, B, T)` of the sampled tokens under the current parameters, and the entropies there.

        Both are detached: their gradient is asked for with `gradient`. Under `torch.no_grad` it cannot be.
        """

    @abstractmethod
    def gradient(self, samples: Samples, log_prob_weights: Tensor, entropy_weights: Tensor | None) -> Sequence[Tensor]:
        """d(Σ w·log p + Σ v·H)/d parameters, one tensor per entry of `parameters`.

        Args:
            samples: those of the last call of `evaluate`.
            log_prob_weights: w, `(R, B, T)`, 0 where masked.
            entropy_weights: v, `(R, B, T)`, or `None` for no entropy term.
        """

    @abstractmethod
    def kappas(self, samples: Samples) -> Tensor:
        """κ = Σ_v p_v²(log p_v + H) where each token was drawn, `(R, B, T)`, under the current parameters; detached.

        Beside log p and H of a token it says to first order what raising its logit does to the entropy there.
        """

    @abstractmethod
    def snapshot(self) -> Self:
        """A copy whose parameters no longer change with this one's."""

    def fused_sample(
        self, initial_states: Tensor, step: Step, uniforms: Tensor, *, entropies: bool
    ) -> tuple[Tensor | None, ...]:
        """`sample` in one expression without memory, which a compiler can fuse; the fields of `Samples` in order.

        Only where `has_fused_path`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fused path")

    def places(self, samples: Samples) -> tuple[Tensor, ...]:
        """What `fused_gradient` has to know of the samples."""
        raise NotImplementedError(f"{type(self).__name__} has no fused path")

    def fused_gradient(self, places: tuple[Tensor, ...], weigh: Weigh, *, entropies: bool) -> Sequence[Tensor]:
        """`evaluate` and `gradient` in one expression without memory, which a compiler can fuse.

        Only where `has_fused_path`.

        Args:
            places: of the samples.
            weigh: maps log-probabilities and entropies, `(R, B·T)` each, to the weights that `gradient` takes.
            entropies: whether it wants the second.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fused path")

    def recompute(self, samples: Samples, *, entropies: bool) -> Samples:
        """The same responses with this policy's log-probabilities and entropies in place of the sampler's."""
        with torch.no_grad():
            log_probs, recomputed = self.evaluate(samples, entropies=entropies)
        return replace(samples, log_probs=log_probs, entropies=recomputed)

    def start(self, episodes: Episodes) -> None:  # noqa: B027 (most policies start right from their constructor)
        """Come as close to the initial policy as training on it can; nothing where the constructor has done so."""

    def log_policy(self) -> Tensor | None:
        """Float `(R, S, V)`, log-probabilities in every automaton state; `None` for a policy that sees more than it."""
        return None

    def next_log_probs(self, initial_states: Tensor, prefixes: Tensor) -> Tensor:
        """Float `(R, N, V)`, log-probabilities of the token after each prefix, for a policy without `log_policy`.

        Args:
            initial_states: int64 `(N,)`.
            prefixes: int64 `(N, t)`, the tokens so far.
        """
        raise NotImplementedError(f"{type(self).__name__} has a table: read it with log_policy")


def kappas_of(log_probs: Tensor) -> Tensor:
    """κ = Σ_v p_v²(log p_v + H) of distributions `(..., V)`, taken in double precision.

    >>> round(kappas_of(torch.tensor([0.5, 0.25, 0.25]).log()).item(), 6)  # log 2/16
    0.043322
    """
    wide = log_probs.detach().double()
    policy, known = wide.exp(), wide.clamp(min=torch.finfo(wide.dtype).min)
    entropies = -(policy * known).sum(-1, keepdim=True)
    return (policy.square() * (known + entropies)).sum(-1).to(log_probs.dtype)


policies: Registry[Callable[..., Policy]] = Registry("model", package="models")


def policy_names() -> list[str]:
    """Every registered policy, sorted."""
    return policies.names()


def make_policy(name: str, logits: Tensor, episodes: Episodes | None = None, **parameters: Any) -> Policy:
    """A policy by name or `name(key=value,…)` that starts as close to `logits` as it can.

    Args:
        name: a registered name.
        logits: float `(R, S, V)`, the initial policy in every automaton state.
        episodes: the environment, which a policy that sees prefixes instead of states needs to approach `logits`;
            without it such a policy starts uniform.
        parameters: settings of that policy.

    Raises:
        UnknownNameError: no such policy.
        ConfigError: no such setting, one out of its range, or logits of the wrong shape.

    Example:
        >>> make_policy("tabular", torch.zeros(1, 2, 4)).shape
        torch.Size([1, 2, 4])
    """
    base, written = parse_call(name)
    builder = policies[base]
    if logits.dim() != 3 or not logits.is_floating_point() or 0 in logits.shape:
        raise ConfigError(
            f"model {base}: logits has shape {tuple(logits.shape)} and dtype {logits.dtype}; expected a floating-point "
            "table (replicas, states, vocabulary). Add a leading dimension for a single replica"
        )
    if not bool(logits.isfinite().all()):
        raise ConfigError(f"model {base}: logits holds NaN or infinity; every entry must be finite")
    try:
        inspect.signature(builder).bind(logits, **written, **parameters)
    except TypeError as error:
        known = ", ".join(list(inspect.signature(builder).parameters)[1:]) or "none"
        raise ConfigError(f"model {base}: {error}. Its settings: {known}") from error
    for setting, value in {**written, **parameters}.items():
        if isinstance(value, int) and value > _LARGEST:
            raise ConfigError(
                f"model {base}: {setting} is {shown(value)}; expected at most {_LARGEST:,}, these are toy policies"
            )
    policy = builder(logits, **written, **parameters)
    if episodes is not None:
        policy.start(episodes)
    return policy
