"""How a sampler may differ from the policy that is trained, as inference engines do from training code."""

from __future__ import annotations

import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from models.policy import EXACT, Distortion, Policy, Samples, Step
from testbed.errors import ConfigError
from testbed.registry import Registry, parse_call

__all__ = ["Mismatch", "make_mismatch", "mismatches"]


class Mismatch(ABC):
    """A sampler that is not quite the policy it samples for.

    One object serves one run: it may remember past policies.
    """

    def numbers(self, policy: Policy, sequences: int, horizon: int) -> int:
        """How many normal numbers a replica needs per rollout."""
        return 0

    @abstractmethod
    def sample(
        self, policy: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, normals: Tensor, *, entropies: bool
    ) -> Samples:
        """Draw responses, with the sampler's log-probabilities.

        Args:
            policy: the policy that is sampled for; left unchanged.
            initial_states: see `Policy.sample`, as for the next two.
            step: the automaton.
            uniforms: in [0, 1).
            normals: `(R, numbers)`, standard normal.
            entropies: whether to return entropies.
        """


mismatches: Registry[Callable[..., Mismatch]] = Registry("mismatch")


def make_mismatch(given: float | str) -> Mismatch:
    """A mismatch by name or `name(key=value,…)`; a number is `noise` of that scale.

    Raises:
        UnknownNameError: no such mismatch.
        ConfigError: no such setting, or one out of its range.

    Example:
        >>> make_mismatch("noise(scale=0.1)").scale, make_mismatch(0.1).scale
        (0.1, 0.1)
    """
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ConfigError(
            f"mismatch is {given!r}; expected a positive number, one of {', '.join(mismatches.names())}, "
            "such as 'noise(scale=0.1)', or None to switch it off"
        )
    if not isinstance(given, str):
        return Noise(given)
    name, settings = parse_call(given)
    builder = mismatches[name]
    try:
        inspect.signature(builder).bind(**settings)
    except TypeError as error:
        known = ", ".join(inspect.signature(builder).parameters) or "none"
        raise ConfigError(f"mismatch {name}: {error}. Its settings: {known}") from error
    return builder(**settings)


@mismatches.register("noise")
class Noise(Mismatch):
    """log π̃(v|s) = log π(v|s) + σ·ε(s, v) - normaliser, with ε standard normal, redrawn every rollout.

    Args:
        scale: σ, nats, positive.
    """

    def __init__(self, scale: float) -> None:
        self.scale = _positive("noise", scale)

    def numbers(self, policy: Policy, sequences: int, horizon: int) -> int:
        """One for every entry of the table over states."""
        return policy.shape[1] * policy.shape[2]

    def sample(
        self, policy: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, normals: Tensor, *, entropies: bool
    ) -> Samples:
        """Samples with the noise of a state wherever a response is in that state."""
        noise = normals.view(policy.shape).to(policy.parameters[0].dtype) * self.scale
        return policy.sample(initial_states, step, uniforms, entropies=entropies, distortion=Distortion(noise=noise))


@mismatches.register("bf16")
class HalfPrecision(Mismatch):
    """Logits rounded to bfloat16, eight bits of mantissa: a logit near 4 moves by up to 2⁻⁷ nats."""

    def sample(
        self, policy: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, normals: Tensor, *, entropies: bool
    ) -> Samples:
        """Samples from the rounded logits."""
        distortion = Distortion(dtype=torch.bfloat16)
        return policy.sample(initial_states, step, uniforms, entropies=entropies, distortion=distortion)


@mismatches.register("router")
class RouterNoise(Mismatch):
    """Gaussian noise on the router's logits, drawn anew for every token: other experts, other weights of them.

    Args:
        scale: standard deviation of the noise, positive.
    """

    def __init__(self, scale: float) -> None:
        self.scale = _positive("router", scale)

    def numbers(self, policy: Policy, sequences: int, horizon: int) -> int:
        """One per token, layer and expert.

        Raises:
            ConfigError: the policy has no router.
        """
        if policy.router_shape is None:
            raise ConfigError(
                f"mismatch is router noise, but {type(policy).__name__} has no router; use model='moe', or another "
                "mismatch"
            )
        return sequences * horizon * math.prod(policy.router_shape)

    def sample(
        self, policy: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, normals: Tensor, *, entropies: bool
    ) -> Samples:
        """Samples with a noisy router; the routing recorded is the noisy one."""
        assert policy.router_shape is not None
        noise = normals.view(*uniforms.shape, *policy.router_shape) * self.scale
        distortion = Distortion(router_noise=noise)
        return policy.sample(initial_states, step, uniforms, entropies=entropies, distortion=distortion)


@mismatches.register("stale")
class StaleCopy(Mismatch):
    """The weights of some rollouts ago, or the initial ones: the sampler was not told of the last updates.

    Unlike with a stale rollout, the ratio's denominator is the trainer's own, as if it had drawn the responses itself.

    Args:
        iterations: rollouts, at least 1.
    """

    def __init__(self, iterations: int) -> None:
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ConfigError(f"mismatch stale: iterations is {iterations!r}; expected a whole number of at least 1")
        self.iterations = iterations
        self._past: deque[Policy] = deque(maxlen=iterations + 1)

    def sample(
        self, policy: Policy, initial_states: Tensor, step: Step, uniforms: Tensor, normals: Tensor, *, entropies: bool
    ) -> Samples:
        """Samples from the copy; call it once per rollout."""
        self._past.append(policy.snapshot())
        return self._past[0].sample(initial_states, step, uniforms, entropies=entropies, distortion=EXACT)


def _positive(name: str, scale: float) -> float:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= sys.float_info.max:
        raise ConfigError(
            f"mismatch {name}: scale is {scale!r}; expected a positive number. Pass mismatch=None to switch it off"
        )
    return float(scale)
