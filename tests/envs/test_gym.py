from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FlattenObservation, TimeAwareObservation, TimeLimit

from envs import env_names, make_spec
from envs.catalogue import ENVIRONMENTS
from envs.gym import AutomatonEnv, AutomatonVectorEnv
from testbed.errors import ConfigError, UnknownNameError


@pytest.fixture
def env():
    return AutomatonEnv("ModularSum-v1", prompts=3, length=2, vocabulary=4, modulus=2)


def test_prompt_option_fixes_the_prompt(env):
    for prompt in (0, 2, 1):
        observation, info = env.reset(options={"prompt": prompt})
        assert info == {"prompt": prompt}
        assert observation == env.automaton.initial_states[prompt]


def test_prompts_are_random_otherwise(env):
    env.reset(seed=0)
    assert {env.reset()[1]["prompt"] for _ in range(50)} == {0, 1, 2}


def test_reward_comes_with_the_last_token(env):
    env.reset(options={"prompt": 1})
    observation, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    # 2 + 3 = 5 and 1 are both odd.
    observation, reward, terminated, truncated, info = env.step(3)
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"success": True})
    assert observation == env.automaton.states
    env.reset(options={"prompt": 1})
    env.step(2)
    assert env.step(2)[1] == 0.0


def test_parameters_pass_through_make():
    env = gymnasium.make("testbed/RareArm-v1", arms=7, contexts=2)
    assert env.action_space.n == 7
    assert env.observation_space.n == 3
    batch = gymnasium.make_vec("testbed/RareArm-v1", num_envs=3, arms=7)
    assert batch.single_action_space.n == 7
    assert batch.num_envs == 3


def test_an_environment_over_a_spec():
    spec = make_spec("Lock-v1", length=2, vocabulary=2)
    assert AutomatonEnv(spec).automaton is spec
    assert AutomatonVectorEnv(2, spec).automaton is spec


def test_batch_option_fixes_every_prompt():
    batch = AutomatonVectorEnv(4, "Copy-v1")
    observations, infos = batch.reset(seed=0, options={"prompt": 5})
    assert infos["prompt"].tolist() == [5] * 4
    assert observations.tolist() == [int(batch.automaton.initial_states[5])] * 4


def test_batch_starts_the_next_episode_one_step_later():
    batch = AutomatonVectorEnv(2, "NeedleBandit-v1", arms=3, reward="deterministic")
    batch.reset(seed=0)
    observations, rewards, terminated, _, infos = batch.step(np.array([0, 1]))
    assert terminated.all()
    assert observations.tolist() == [batch.automaton.states] * 2
    assert set(rewards.tolist()) <= {0.25, 0.75}
    observations, rewards, terminated, _, infos = batch.step(np.array([2, 2]))
    assert not terminated.any()
    assert rewards.tolist() == [0.0, 0.0]
    assert infos["_prompt"].all()


def test_batch_accepts_a_seed_per_environment():
    batch = AutomatonVectorEnv(2, "Copy-v1")
    together, _ = batch.reset(seed=[11, 5])
    alone, _ = AutomatonEnv("Copy-v1").reset(seed=5)
    assert together[1] == alone


def test_results_are_the_caller_s_own():
    batch = AutomatonVectorEnv(2, "Copy-v1")
    first, _ = batch.reset(seed=0)
    kept = first.copy()
    batch.step(np.array([0, 0]))
    assert (first == kept).all()


@pytest.mark.parametrize("action", [4, -1, 1.5, "two"])
def test_rejects_actions_outside_the_space(env, action):
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"action is .*; expected a token, a whole number from 0 to 3"):
        env.step(action)


@pytest.mark.parametrize("actions", [[0, 4], [0], [0, -1], [0.5, 1.0]])
def test_batch_rejects_actions_outside_the_space(actions):
    batch = AutomatonVectorEnv(2, "ModularSum-v1", vocabulary=4)
    batch.reset(seed=0)
    with pytest.raises(ConfigError, match=r"action is .*; expected 2 tokens, whole numbers from 0 to 3"):
        batch.step(np.array(actions))


@pytest.mark.parametrize("options", [{"prompt": 3}, {"prompt": -1}, {"prompt": "first"}])
def test_rejects_unknown_prompts(env, options):
    with pytest.raises(ConfigError, match=r"option prompt is .*has prompts 0 to 2"):
        env.reset(options=options)


def test_rejects_unknown_options(env):
    with pytest.raises(ConfigError, match="unknown option 'promt'; the only one is 'prompt'"):
        env.reset(options={"promt": 0})


def test_step_needs_a_reset(env):
    with pytest.raises(gymnasium.error.ResetNeeded, match="no episode is under way"):
        env.step(0)


def test_step_needs_a_reset_after_the_end(env):
    env.reset(seed=0)
    env.step(0)
    env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="no episode is under way"):
        env.step(0)


def test_batch_step_needs_a_reset():
    with pytest.raises(gymnasium.error.ResetNeeded, match="no episode is under way"):
        AutomatonVectorEnv(1, "Copy-v1").step(np.array([0]))


def test_rejects_specs_with_replicas():
    spec = make_spec("Copy-v1").for_seeds([0, 1])
    with pytest.raises(ConfigError, match=r"replica dimensions \(2,\); an environment plays one"):
        AutomatonEnv(spec)


def test_rejects_empty_batches():
    with pytest.raises(ConfigError, match="num_envs is 0; expected at least 1"):
        AutomatonVectorEnv(0, "Copy-v1")


def test_rejects_seeds_of_the_wrong_number():
    with pytest.raises(ConfigError, match="seed has 3 entries; expected one for each of 2"):
        AutomatonVectorEnv(2, "Copy-v1").reset(seed=[1, 2, 3])


def test_unknown_parameter_through_gymnasium():
    with pytest.raises(ConfigError, match="no parameter 'arm'"):
        gymnasium.make("testbed/RareArm-v1", arm=3)


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="did you mean 'Lock-v1'"):
        AutomatonEnv("Locks-v1")


# -- as Gymnasium's and other people's wrappers use it -----------------------------------------------------------------


def ask_nothing(env):
    return env


def limited(env):
    return TimeLimit(env, 3)


@pytest.mark.parametrize("name", env_names())
@pytest.mark.parametrize("wrapper", [ask_nothing, FlattenObservation, TimeAwareObservation, limited])
def test_wrapped_environments_pass_the_checker_and_end_by_themselves(name, wrapper):
    env = wrapper(gymnasium.make(f"testbed/{name}", render_mode=None))
    with warnings.catch_warnings():
        # That a wrapper is not the environment itself is all the checker may say.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version", category=UserWarning)
        check_env(env)
    env.reset(seed=0)
    env.action_space.seed(0)
    over = cut = False
    while not over:
        observation, _, terminated, cut, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        over = terminated or cut
    assert cut == (wrapper is limited and env.get_wrapper_attr("automaton").horizon >= 3)


@pytest.mark.parametrize("name", env_names())
def test_no_response_reaches_the_registered_limit(name):
    spec, limit = make_spec(name), gymnasium.spec(f"testbed/{name}").max_episode_steps
    assert spec.horizon < limit
    if "length" not in spec.parameters:
        return
    length = ENVIRONMENTS[name].longest
    long = {"length": length} | {key: ENVIRONMENTS[name].small[key] for key in ("prompts",)}
    assert make_spec(name, **long).horizon == length < limit
    with pytest.raises(ConfigError, match=rf"length is {length + 1}; expected a whole number in"):
        make_spec(name, **long | {"length": length + 1})


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("limit", [{}, {"max_episode_steps": 2}])
@pytest.mark.parametrize("name", ["VariableLength-v1", "RareArm-v1"])
def test_batch_equals_gymnasium_s_own_in_every_autoreset_mode(name, limit, mode):
    identity, count = f"testbed/{name}", 5
    batch = gymnasium.make_vec(identity, count, autoreset_mode=mode.value, render_mode="ansi", **limit)
    single = {"autoreset_mode": mode}
    theirs = gymnasium.make_vec(identity, count, "sync", vector_kwargs=single, render_mode="ansi", **limit)
    assert batch.metadata == theirs.metadata
    assert data_equivalence(batch.reset(seed=3), theirs.reset(seed=3), exact=True)
    batch.action_space.seed(0)
    ended = 0
    for step in range(40):
        actions = batch.action_space.sample()
        found = batch.step(actions)
        assert data_equivalence(found, theirs.step(actions), exact=True), step
        assert batch.render() == theirs.render()
        over = found[2] | found[3]
        ended += over.sum()
        where = over if mode is AutoresetMode.DISABLED else np.arange(count) == step % count
        if where.any():
            # Gymnasium takes the mask out of the options it is given.
            masks = ({"reset_mask": where.copy()} for _ in range(2))
            seeds = [step, *[None] * (count - 1)]
            resets = [env.reset(seed=seeds, options=next(masks)) for env in (batch, theirs)]
            assert data_equivalence(*resets, exact=True), step
    assert ended > 0


def test_a_disabled_batch_waits_for_its_mask():
    batch = AutomatonVectorEnv(2, "RareArm-v1", autoreset_mode=AutoresetMode.DISABLED)
    batch.reset(seed=0)
    batch.step(np.array([0, 0]))
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"episodes of environments \[0, 1\] are over"):
        batch.step(np.array([0, 0]))
    batch.reset(options={"reset_mask": np.array([True, False]), "prompt": 3})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"episodes of environments \[1\] are over"):
        batch.step(np.array([0, 0]))


@pytest.mark.parametrize("mask", [np.array([True]), np.array([1, 0]), np.array([False, False]), "both"])
def test_rejects_masks_that_are_none(mask):
    batch = AutomatonVectorEnv(2, "Copy-v1")
    with pytest.raises(ConfigError, match=r"option reset_mask is .*; expected bool \(2,\) with at least one True"):
        batch.reset(options={"reset_mask": mask})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"autoreset_mode": "Later"}, "autoreset_mode is 'Later'; expected one of 'NextStep', 'SameStep', 'Disabled'"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0; expected a whole number of at least 1, or None"),
    ],
)
def test_rejects_modes_and_limits_that_are_none(parameters, message):
    with pytest.raises(ConfigError, match=message):
        AutomatonVectorEnv(2, "Copy-v1", **parameters)


def test_an_episode_reads_as_text():
    env = gymnasium.make("testbed/DigitAddition-v1", render_mode="ansi")
    env.reset(options={"prompt": 0})
    first, second = (int(number) for number in env.unwrapped.automaton.prompt_texts[0].split("+"))
    assert env.render() == f"DigitAddition-v1, prompt 0: {first:02d}+{second:02d}\nresponse:\n" + (
        f"state 0 of {env.unwrapped.automaton.states}, 0 of at most 3 tokens"
    )
    # The sum, last digit first.
    digits = [int(digit) for digit in f"{first + second:03d}"[::-1]]
    for digit in digits:
        env.step(digit)
    written = " ".join(map(str, digits))
    assert env.render().splitlines()[1:] == [f"response: {written}", "over: reward 1, right, 3 of at most 3 tokens"]


def test_a_mode_that_cannot_be_drawn_is_taken_and_refused_when_drawn():
    with pytest.warns(UserWarning, match="not in the possible render_modes"):
        env = gymnasium.make("testbed/Copy-v1", render_mode="rgb_array", disable_env_checker=True)
    env.reset()
    with pytest.raises(ConfigError, match="render_mode is 'rgb_array'; expected 'ansi'"):
        env.render()


@pytest.mark.parametrize("make", [AutomatonEnv, lambda name: AutomatonVectorEnv(2, name)])
def test_nothing_is_drawn_without_a_mode(make):
    env = make("Copy-v1")
    env.reset()
    with pytest.warns(UserWarning, match='make the environment with render_mode="ansi"'):
        assert env.render() is None
