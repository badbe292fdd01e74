"""The same bandit as `bandit.py`, written the way others would: loops over one seed, and one JAX program over many.

Each function does some work and returns how many updates of one seed it made; what is not installed is left out. The
peers live in an environment of their own (`pip install stable-baselines3 jax`), never in the project's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

ARMS, GROUP, UPDATES, CLIP = 100, 16, 4, 0.2
JAX_REPLICAS, JAX_STEPS = 256, 200


class Coins(gymnasium.Env[int, int]):
    """A bandit whose arms are all fair coins; an episode is one draw."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(ARMS)

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)
        self._observation = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self._observation, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._observation, float(self._generator.random() < 0.5), True, False, {}


def plain_loop(steps: int) -> float:
    """What one writes first in torch: one seed, categorical draws, autograd through everything."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ARMS, generator=generator, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=1.0)
    for _ in range(steps):
        with torch.no_grad():
            policy = torch.distributions.Categorical(logits=logits)
            actions = policy.sample((GROUP,))
            old_log_probs = policy.log_prob(actions)
            rewards = (torch.rand(GROUP, generator=generator) < 0.5).float()
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
        for _ in range(UPDATES):
            log_probs = torch.log_softmax(logits, -1)[actions]
            ratio = torch.exp(log_probs - old_log_probs)
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            loss = -torch.min(ratio * advantages, clipped * advantages).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return steps * UPDATES


def clean_loop(steps: int) -> float:
    """A CleanRL-style script: 16 environments in step, actor and critic, Adam, gradient clipping."""
    environments = gymnasium.vector.SyncVectorEnv([Coins] * GROUP, autoreset_mode="SameStep")
    actor, critic = nn.Linear(1, ARMS), nn.Linear(1, 1)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-2, eps=1e-5)
    observation = torch.as_tensor(environments.reset()[0])
    for _ in range(steps):
        with torch.no_grad():
            policy = torch.distributions.Categorical(logits=actor(observation))
            actions = policy.sample()
            old_log_probs, old_values = policy.log_prob(actions), critic(observation).flatten()
        _, rewards, *_ = environments.step(actions.numpy())
        returns = torch.as_tensor(rewards, dtype=torch.float32)
        advantages = returns - old_values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(UPDATES):
            policy = torch.distributions.Categorical(logits=actor(observation))
            ratio = (policy.log_prob(actions) - old_log_probs).exp()
            surrogate = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = surrogate + 0.25 * (critic(observation).flatten() - returns).square().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimiser.step()
    return steps * UPDATES


def stable_baselines() -> Callable[[int], float] | None:
    """Stable-Baselines3's PPO on one environment with its default policy."""
    if importlib.util.find_spec("stable_baselines3") is None:
        return None
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", Coins(), n_steps=GROUP, batch_size=GROUP, n_epochs=UPDATES, device="cpu")

    def run(steps: int) -> float:
        model.learn(steps * GROUP)
        return steps * UPDATES

    return run


def jax_program(draw: str) -> Callable[[], float] | None:
    """A purejaxrl-style program: the whole run is one function of a key, mapped over seeds and compiled.

    Args:
        draw: `gumbel` (`jax.random.categorical`) or `inverse` (a search in the distribution function).
    """
    if importlib.util.find_spec("jax") is None:
        return None
    import jax
    import jax.numpy as jnp

    def sample(key: Any, logits: Any) -> Any:
        if draw == "gumbel":
            return jax.random.categorical(key, logits, shape=(GROUP,))
        distribution = jnp.cumsum(jax.nn.softmax(logits))
        return jnp.clip(jnp.searchsorted(distribution, jax.random.uniform(key, (GROUP,)), side="right"), 0, ARMS - 1)

    def loss(logits: Any, actions: Any, old_log_probs: Any, advantages: Any) -> Any:
        ratio = jnp.exp(jax.nn.log_softmax(logits)[actions] - old_log_probs)
        return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages).mean()

    def rollout_and_updates(state: Any, _: Any) -> Any:
        logits, key = state
        key, draw_key, reward_key = jax.random.split(key, 3)
        actions = sample(draw_key, logits)
        old_log_probs = jax.nn.log_softmax(logits)[actions]
        rewards = jax.random.bernoulli(reward_key, 0.5, (GROUP,)).astype(jnp.float32)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)

        def update(current: Any, _: Any) -> Any:
            return current - jax.grad(loss)(current, actions, old_log_probs, advantages), None

        logits, _ = jax.lax.scan(update, logits, None, UPDATES)
        return (logits, key), None

    def train(key: Any) -> Any:
        start, key = jax.random.split(key)
        state = (jax.random.normal(start, (ARMS,)), key)
        return jax.lax.scan(rollout_and_updates, state, None, JAX_STEPS)[0][0]

    compiled = jax.jit(jax.vmap(train))
    keys = jax.random.split(jax.random.PRNGKey(0), JAX_REPLICAS)

    def run() -> float:
        compiled(keys).block_until_ready()
        return JAX_REPLICAS * JAX_STEPS * UPDATES

    return run


def trl_trainer() -> Callable[[int], float] | None:
    """TRL's GRPOTrainer with a transformer of a hundred thousand parameters that answers with one token."""
    if importlib.util.find_spec("trl") is None:
        return None
    import datasets
    import trl

    from models.causal_lm import load_causal_lm

    datasets.disable_progress_bars()
    built = load_causal_lm("qwen2-0.1m")
    generator = np.random.default_rng(0)

    def coin(completions: list[str], **_: Any) -> list[float]:
        return [float(value) for value in generator.random(len(completions)) < 0.5]

    def run(updates: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trl.GRPOTrainer(
                model=built.model,
                processing_class=built.tokenizer,
                reward_funcs=coin,
                train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * 64}),
                args=trl.GRPOConfig(
                    output_dir=folder,
                    per_device_train_batch_size=GROUP,
                    num_generations=GROUP,
                    num_iterations=UPDATES,
                    max_completion_length=1,
                    max_steps=updates,
                    beta=0.0,
                    use_cpu=True,
                    bf16=False,
                    disable_tqdm=True,
                    report_to=[],
                    logging_strategy="no",
                    save_strategy="no",
                ),
            )
            with contextlib.redirect_stdout(None):
                trainer.train()
        return updates

    return run
