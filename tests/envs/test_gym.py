from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from envs import make_spec
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
