"""How fast the simulation is on the smallest problem: many seeds at once against loops over one.

    python benchmarks/bandit.py

PPO's clipped objective on a bandit of 100 arms whose rewards are coins, 16 draws a rollout, 4 SGD updates on each.
The unit is a replica-update: one update of one seed. Everything runs on one thread; programs take turns.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable

import torch
from _measuring import machine_facts, markdown_table, take_turns

from testbed.simulation import simulate

ARMS, GROUP, UPDATES, CLIP = 100, 16, 4, 0.2
REPLICAS = 256
ENVIRONMENT = f"NullBandit-v1(arms={ARMS},contexts=1)"


def plain_loop(steps: int) -> float:
    """What one writes first: one seed, multinomial draws, autograd through everything."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ARMS, generator=generator, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=1.0)
    for _ in range(steps):
        with torch.no_grad():
            policy = torch.distributions.Categorical(logits=logits)
            actions = torch.multinomial(policy.probs, GROUP, replacement=True, generator=generator)
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


def simulated(replicas: int, steps: int) -> float:
    """The project's own program; its table has the first and the last step."""
    simulate(
        f"ppo(clip_low={CLIP},clip_high={CLIP})",
        ENVIRONMENT,
        seeds=replicas,
        steps=steps,
        group_size=GROUP,
        epochs=UPDATES,
        metrics_every=steps,
    )
    return replicas * steps * UPDATES


def main(turns: int = 7) -> None:
    torch.set_num_threads(1)
    programs: dict[str, Callable[[], float]] = {
        "plain torch, one seed": lambda: plain_loop(300),
        "simulate, 1 replica": lambda: simulated(1, 600),
        f"simulate, {REPLICAS} replicas": lambda: simulated(REPLICAS, 600),
    }
    timings = take_turns(programs, turns)
    plain, _, many = timings.values()
    rows = [
        [name, f"{timing.median:,.0f}", f"{timing.over(plain):,.1f}", f"{many.over(timing):,.1f}"]
        for name, timing in timings.items()
    ]
    print(markdown_table(["program", "replica-updates/s", "over plain", f"{REPLICAS} replicas over it"], rows))
    print()
    for replicas in (16, 64, 256, 1024):
        rate = take_turns({"": lambda: simulated(replicas, 300)}, 3)[""].median  # noqa: B023
        print(f"{replicas:>5} replicas: {rate:>12,.0f} replica-updates/s")
    print("\n".join(f"{key}: {value}" for key, value in machine_facts().items()))


if __name__ == "__main__":
    main()
