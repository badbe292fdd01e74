"""Gymnasium's view of an automaton: one episode at a time, or a batch of them stepped together.

Both classes consume random numbers alike: environment i of a batch seeded with s plays the very episodes a single
environment seeded with s + i plays.
"""

from __future__ import annotations

import math
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

RENDERING: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}
"""Of Gymnasium's `metadata`; a page of text may change a few times a second."""


class AutomatonEnv(gymnasium.Env[np.int64, np.int64]):
    """One episode at a time.

    The observation is the number of the state, and `spec.states` once the episode is over; the action is a token. The
    reward comes with the last token and is 0 before. `info` holds `prompt` after a reset and `success` at the end.

    Args:
        name: name for `make_spec`, or a spec without replica dimensions.
        render_mode: "ansi": `render` writes the prompt, the response so far and its reward. Another mode is taken, as
            Gymnasium's own environments do (`gymnasium.make` warns of it), and refused by `render`.
        parameters: for `make_spec`.

    Raises:
        UnknownNameError, ConfigError: as `make_spec`; the spec has replica dimensions; `reset` is given an unknown
            option or prompt; `step` is given an action that is not a token; `render` cannot draw the mode.
        gymnasium.error.ResetNeeded: `step` or `render` is called before `reset`, or `step` after the episode ended.

    Example:
        >>> env = AutomatonEnv("Copy-v1", render_mode="ansi")
        >>> _ = env.reset(options={"prompt": 2})
        >>> _ = env.step(3)
        >>> print(env.render())
        Copy-v1, prompt 2: 1 6 5 7
        response: 3
        state 12 of 56, 1 of at most 4 tokens
    """

    metadata: dict[str, Any] = RENDERING

    def __init__(self, name: str | Automaton, *, render_mode: str | None = None, **parameters: Any) -> None:
        self.automaton = _single(name, parameters)
        self.render_mode = render_mode
        self.action_space: Discrete = Discrete(self.automaton.vocabulary)
        self.observation_space: Discrete = Discrete(self.automaton.states + 1)
        self._state = self.automaton.states
        self._story = Story(self.automaton)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start an episode; `options={"prompt": i}` fixes its prompt, which is random otherwise."""
        super().reset(seed=seed)
        prompt = _start(self.automaton, self.np_random, options)
        self._state = int(self.automaton.initial_states[prompt])
        self._story.begin(prompt)
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
            self._story.go_on(int(action))
            return np.int64(following), 0.0, False, False, {}
        self._state = self.automaton.states
        uniform = torch.tensor([self.np_random.random()], dtype=torch.float64)
        reward = float(self.automaton.draw_rewards(state, token, uniform))
        success = bool(self.automaton.draw_success(state, token, uniform))
        self._story.end(int(action), reward, success)
        return np.int64(self._state), reward, True, False, {"success": success}

    def render(self) -> str | None:
        """The episode in words, where the mode is "ansi"; nothing where there is no mode."""
        return self._story.tell(self._state) if _draws(self) else None


class AutomatonVectorEnv(VectorEnv[Integers, Integers, npt.NDArray[Any]]):
    """A batch of episodes stepped as one; see `AutomatonEnv` for what a step means.

    What follows the end of an episode is Gymnasium's `AutoresetMode`: by default the environment starts the next one at
    the following step, whatever action it is given (NEXT_STEP); it starts within the very step, and `info` holds
    `final_obs` and `final_info` of the episode that ended (SAME_STEP); or it waits for a `reset` whose option
    `reset_mask`, bool `(num_envs,)`, says where (DISABLED). The option works with every mode.

    Args:
        num_envs: number of environments.
        name: name for `make_spec`, or a spec without replica dimensions.
        render_mode: as `AutomatonEnv`; `render` gives one text per environment.
        autoreset_mode: an `AutoresetMode`, or its value, such as "SameStep".
        max_episode_steps: an episode is cut off after so many tokens (`truncated`); `None` or -1: never.
        parameters: for `make_spec`.

    Raises:
        UnknownNameError, ConfigError: as `AutomatonEnv`; the mode, the limit or the mask is none.
        gymnasium.error.ResetNeeded: `step` is called before `reset`, or with mode DISABLED where an episode has ended.
    """

    metadata: dict[str, Any] = RENDERING | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int,
        name: str | Automaton,
        *,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **parameters: Any,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}; expected at least 1")
        self.automaton = _single(name, parameters)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = RENDERING | {"autoreset_mode": _autoreset_mode(autoreset_mode)}
        self.single_action_space: Discrete = Discrete(self.automaton.vocabulary)
        self.single_observation_space: Discrete = Discrete(self.automaton.states + 1)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._limit = _limit(max_episode_steps)
        self._states: Integers = np.full(num_envs, self.automaton.states)
        self._over: Booleans = np.ones(num_envs, dtype=np.bool_)
        self._tokens: Integers = np.zeros(num_envs, dtype=np.int64)
        self._generators: list[np.random.Generator] = []
        self._stories = [Story(self.automaton) for _ in range(num_envs if render_mode == "ansi" else 0)]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Integers, dict[str, Any]]:
        """Start an episode where the option `reset_mask` says so, everywhere without it.

        A whole-number seed s gives environment i the seed s + i.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is None:
            seeds = [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ConfigError(f"seed has {len(seeds)} entries; expected one for each of {self.num_envs} environments")
        options = dict(options or {})
        where = self._mask(options.pop("reset_mask", None))
        if not self._generators:
            self._generators = [seeding.np_random(entry)[0] for entry in seeds]
        else:
            self._generators = [
                seeding.np_random(entry)[0] if entry is not None and chosen else generator
                for generator, entry, chosen in zip(self._generators, seeds, where, strict=True)
            ]
        infos = self._start(where, options)
        return self._states.copy(), infos

    def step(self, actions: Integers) -> tuple[Integers, Floats, Booleans, Booleans, dict[str, Any]]:
        """Append a token everywhere, or start the next episode where the last one ended."""
        if not self._generators:
            raise gymnasium.error.ResetNeeded("no episode is under way; call reset() first")
        actions = np.asarray(actions)
        if not self.action_space.contains(actions):
            raise ConfigError(_action_error(self.automaton, actions, self.num_envs))
        mode, over = self.metadata["autoreset_mode"], self._over.copy()
        if mode is AutoresetMode.DISABLED and over.any():
            raise gymnasium.error.ResetNeeded(
                f"the episodes of environments {np.flatnonzero(over).tolist()} are over; call "
                "reset(options={'reset_mask': …}) with True there"
            )
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = self._start(over, {}) if over.any() else {}

        running = np.flatnonzero(~over)
        states, tokens = torch.from_numpy(self._states[running]), torch.from_numpy(actions[running])
        following = self.automaton.step(states, tokens).numpy()
        ended = following < 0
        self._states[running] = np.where(ended, self.automaton.states, following)
        self._tokens[running] += 1
        success = np.zeros(self.num_envs, dtype=np.bool_)
        if ended.any():
            finished = running[ended]
            terminated[finished] = True
            uniforms = torch.tensor([self._generators[i].random() for i in finished], dtype=torch.float64)
            last = torch.from_numpy(ended)
            rewards[finished] = self.automaton.draw_rewards(states[last], tokens[last], uniforms).numpy()
            success[finished] = self.automaton.draw_success(states[last], tokens[last], uniforms).numpy()
        truncated: Booleans = ~over & (self._tokens >= self._limit)
        self._over = terminated | truncated
        for i in running if self._stories else ():
            if terminated[i]:
                self._stories[i].end(int(actions[i]), float(rewards[i]), bool(success[i]))
            else:
                self._stories[i].go_on(int(actions[i]))
        ending = {"success": success, "_success": terminated.copy()} if terminated.any() else {}
        if mode is AutoresetMode.SAME_STEP and self._over.any():
            infos |= self._final(ending) | self._start(self._over.copy(), {})
        else:
            infos |= ending
        return self._states.copy(), rewards, terminated, truncated, infos

    def render(self) -> tuple[str, ...] | None:
        """Every episode in words, where the mode is "ansi"; nothing where there is no mode."""
        if not _draws(self):
            return None
        return tuple(story.tell(int(state)) for story, state in zip(self._stories, self._states, strict=True))

    def _start(self, where: Booleans, options: dict[str, Any]) -> dict[str, Any]:
        prompts = np.zeros(self.num_envs, dtype=np.int64)
        for i in np.flatnonzero(where):
            prompts[i] = _start(self.automaton, self._generators[i], options)
            if self._stories:
                self._stories[i].begin(int(prompts[i]))
        self._states[where] = self.automaton.initial_states.numpy()[prompts[where]]
        self._tokens[where] = 0
        self._over[where] = False
        return {"prompt": prompts, "_prompt": where}

    def _final(self, ending: dict[str, Any]) -> dict[str, Any]:
        """What SAME_STEP hands over of the episodes that ended, before the next ones start."""
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(self._over):
            observations[i] = self._states[i]
        return {
            "final_obs": observations,
            "_final_obs": self._over.copy(),
            "final_info": ending,
            "_final_info": self._over.copy(),
        }

    def _mask(self, mask: Any) -> Booleans:
        """Where a reset starts an episode; a copy."""
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        given = np.asarray(mask)
        if given.shape != (self.num_envs,) or given.dtype != np.bool_ or not given.any():
            raise ConfigError(
                f"reset: option reset_mask is {mask!r}; expected bool ({self.num_envs},) with at least one True"
            )
        return given.copy()


class Story:
    """What is written of one episode: its prompt, its tokens, how it ended."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._prompt: int | None = None
        self._tokens: list[int] = []
        self._outcome = ""

    def begin(self, prompt: int) -> None:
        """A new episode."""
        self._prompt, self._tokens, self._outcome = prompt, [], ""

    def go_on(self, token: int) -> None:
        """A token."""
        self._tokens.append(token)

    def end(self, token: int, reward: float, success: bool) -> None:
        """The last token."""
        self._tokens.append(token)
        self._outcome = f"over: reward {reward:g}, {'right' if success else 'wrong'}"

    def tell(self, state: int) -> str:
        """Three lines.

        Raises:
            gymnasium.error.ResetNeeded: there is no episode.
        """
        spec, prompt = self._automaton, self._prompt
        if prompt is None:
            raise gymnasium.error.ResetNeeded("there is no episode to render; call reset() first")
        texts = spec.token_texts or range(spec.vocabulary)
        question = f": {spec.prompt_texts[prompt]}" if spec.prompt_texts else ""
        count = f"{len(self._tokens)} of at most {spec.horizon} tokens"
        return "\n".join(
            (
                f"{spec.name}, prompt {prompt}{question}",
                " ".join(("response:", *(str(texts[token]) for token in self._tokens))),
                f"{self._outcome or f'state {state} of {spec.states}'}, {count}",
            )
        )


def _draws(env: AutomatonEnv | AutomatonVectorEnv) -> bool:
    """Whether there is something to render; a mode that cannot be is refused."""
    if env.render_mode is None:
        gymnasium.logger.warn('render() without a mode draws nothing; make the environment with render_mode="ansi"')
        return False
    if env.render_mode not in RENDERING["render_modes"]:
        raise ConfigError(f"render_mode is {env.render_mode!r}; expected 'ansi', which renders an episode as text")
    return True


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(member.value) for member in AutoresetMode)
        raise ConfigError(f"autoreset_mode is {mode!r}; expected one of {known}") from None


def _limit(steps: int | None) -> float:
    """Tokens after which an episode is cut off."""
    if steps is None or steps == -1:
        return math.inf
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"max_episode_steps is {steps!r}; expected a whole number of at least 1, or None")
    return steps


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
        raise ConfigError(f"reset: unknown option {sorted(map(str, unknown))[0]!r}; the only one is 'prompt'")
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
