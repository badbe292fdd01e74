"""Gymnasium's view of an automaton: one episode at a time, or a batch of them stepped together.

Both classes consume random numbers alike: environment i of a batch seeded with s plays the very episodes a single
environment seeded with s + i plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.automaton import Automaton
from envs.catalogue import make_spec
from testbed.errors import ConfigError

__all__ = ["AutomatonEnv", "AutomatonVectorEnv"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


class AutomatonEnv(gymnasium.Env[np.int64, np.int64]):
    """One episode at a time.

    The observation is the number of the state, and `spec.states` once the episode is over; the action is a token. The
    reward comes with the last token and is 0 before. `info` holds `prompt` after a reset and `success` at the end.

    Args:
        name: name for `make_spec`, or a spec without replica dimensions.
        parameters: for `make_spec`.

    Raises:
        UnknownNameError, ConfigError: as `make_spec`; the spec has replica dimensions; `reset` is given an unknown
            option or prompt; `step` is given an action that is not a token.
        gymnasium.error.ResetNeeded: `step` is called before `reset` or after the episode ended.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, name: str | Automaton, **parameters: Any) -> None:
        self.automaton = _single(name, parameters)
        self.action_space: Discrete = Discrete(self.automaton.vocabulary)
        self.observation_space: Discrete = Discrete(self.automaton.states + 1)
        self._state = self.automaton.states

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start an episode; `options={"prompt": i}` fixes its prompt, which is random otherwise."""
        super().reset(seed=seed)
        prompt = _start(self.automaton, self.np_random, options)
        self._state = int(self.automaton.initial_states[prompt])
        return np.int64(self._state), {"prompt": prompt}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Append a token."""
        if self._state == self.automaton.states:
            raise gymnasium.error.ResetNeeded("no episode is under way; call reset() first")
        if not self.action_space.contains(action):
            raise ConfigError(_action_error(self.automaton, action))
        state, token = torch.tensor([self._state]), torch.tensor([int(action)])
        following = int(self.automaton.step(state, token))
        if following >= 0:
            self._state = following
            return np.int64(following), 0.0, False, False, {}
        self._state = self.automaton.states
        uniform = torch.tensor([self.np_random.random()], dtype=torch.float64)
        reward = float(self.automaton.draw_rewards(state, token, uniform))
        success = bool(self.automaton.draw_success(state, token, uniform))
        return np.int64(self._state), reward, True, False, {"success": success}


class AutomatonVectorEnv(VectorEnv[Integers, Integers, npt.NDArray[Any]]):
    """A batch of episodes stepped as one; see `AutomatonEnv` for what a step means.

    An environment whose episode ended starts the next one at the following step, whatever action it is given
    (Gymnasium's `AutoresetMode.NEXT_STEP`).

    Args:
        num_envs: number of environments.
        name: name for `make_spec`, or a spec without replica dimensions.
        parameters: for `make_spec`.

    Raises:
        UnknownNameError, ConfigError: as `AutomatonEnv`.
        gymnasium.error.ResetNeeded: `step` is called before `reset`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's own declaration
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, num_envs: int, name: str | Automaton, **parameters: Any) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}; expected at least 1")
        self.automaton = _single(name, parameters)
        self.num_envs = num_envs
        self.single_action_space: Discrete = Discrete(self.automaton.vocabulary)
        self.single_observation_space: Discrete = Discrete(self.automaton.states + 1)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._states: Integers = np.full(num_envs, self.automaton.states)
        self._generators: list[np.random.Generator] = []

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Integers, dict[str, Any]]:
        """Start an episode everywhere; a whole-number seed s gives environment i the seed s + i."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is None:
            seeds = [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ConfigError(f"seed has {len(seeds)} entries; expected one for each of {self.num_envs} environments")
        if not self._generators:
            self._generators = [seeding.np_random(entry)[0] for entry in seeds]
        else:
            self._generators = [
                generator if entry is None else seeding.np_random(entry)[0]
                for generator, entry in zip(self._generators, seeds, strict=True)
            ]
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos = self._start(everywhere, options)
        return self._states.copy(), infos

    def step(self, actions: Integers) -> tuple[Integers, Floats, Booleans, Booleans, dict[str, Any]]:
        """Append a token everywhere, or start the next episode where the last one ended."""
        if not self._generators:
            raise gymnasium.error.ResetNeeded("no episode is under way; call reset() first")
        actions = np.asarray(actions)
        if not self.action_space.contains(actions):
            raise ConfigError(_action_error(self.automaton, actions, self.num_envs))
        over = self._states == self.automaton.states
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = self._start(over, None) if over.any() else {}

        running = np.flatnonzero(~over)
        states, tokens = torch.from_numpy(self._states[running]), torch.from_numpy(actions[running])
        following = self.automaton.step(states, tokens).numpy()
        ended = following < 0
        self._states[running] = np.where(ended, self.automaton.states, following)
        if ended.any():
            finished = running[ended]
            terminated[finished] = True
            uniforms = torch.tensor([self._generators[i].random() for i in finished], dtype=torch.float64)
            last = torch.from_numpy(ended)
            rewards[finished] = self.automaton.draw_rewards(states[last], tokens[last], uniforms).numpy()
            success = np.zeros(self.num_envs, dtype=np.bool_)
            success[finished] = self.automaton.draw_success(states[last], tokens[last], uniforms).numpy()
            infos |= {"success": success, "_success": terminated.copy()}
        return self._states.copy(), rewards, terminated, np.zeros_like(terminated), infos

    def _start(self, where: Booleans, options: dict[str, Any] | None) -> dict[str, Any]:
        prompts = np.zeros(self.num_envs, dtype=np.int64)
        for i in np.flatnonzero(where):
            prompts[i] = _start(self.automaton, self._generators[i], options)
        self._states[where] = self.automaton.initial_states.numpy()[prompts[where]]
        return {"prompt": prompts, "_prompt": where.copy()}


def _single(name: str | Automaton, parameters: dict[str, Any]) -> Automaton:
    spec = make_spec(name, **parameters) if isinstance(name, str) else name
    if spec.replica_shape:
        raise ConfigError(
            f"{spec.name}: the tables have replica dimensions {tuple(spec.replica_shape)}; an environment plays one "
            "replica, give it a spec without them"
        )
    return spec


def _start(spec: Automaton, generator: np.random.Generator, options: dict[str, Any] | None) -> int:
    """The prompt of the next episode."""
    options = options or {}
    if unknown := set(options) - {"prompt"}:
        raise ConfigError(f"reset: unknown option {sorted(unknown)[0]!r}; the only one is 'prompt'")
    if "prompt" not in options:
        return int(generator.integers(spec.prompts))
    prompt = options["prompt"]
    if not Discrete(spec.prompts).contains(prompt):
        raise ConfigError(f"reset: option prompt is {prompt!r}; {spec.name} has prompts 0 to {spec.prompts - 1}")
    return int(prompt)


def _action_error(spec: Automaton, action: object, batch: int | None = None) -> str:
    expected = f"a token, a whole number from 0 to {spec.vocabulary - 1}"
    if batch is not None:
        expected = f"{batch} tokens, whole numbers from 0 to {spec.vocabulary - 1}"
    return f"{spec.name}: action is {action!r}; expected {expected}"
