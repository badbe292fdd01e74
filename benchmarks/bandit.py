"""How fast the simulation is on the smallest problem: many seeds at once against loops over one, and against JAX.

    python benchmarks/bandit.py

PPO's clipped objective on a bandit of 100 arms whose rewards are coins, 16 draws a rollout, 4 updates on each. The unit
is a replica-update: one update of one seed. Everything runs on one core; programs take turns, and peers that are not
installed are left out. Beside the programs stands what the core can do at all.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import shutil
from collections.abc import Callable

import torch
from _measuring import Timing, machine_facts, markdown_table, pin_to_one_core, take_turns
from peers import ARMS, CLIP, GROUP, UPDATES, clean_loop, jax_program, plain_loop, stable_baselines

from testbed.simulation import simulate

REPLICAS = 256
PLAIN, ONE, MANY = "plain torch loop, 1 seed", "simulate, 1 replica", f"simulate, {REPLICAS} replicas"
COMPILED = f"{MANY}, compiled"


def simulated(
    replicas: int, steps: int, *, arms: int = ARMS, env: str = "", group_size: int = GROUP, compile: bool = False
) -> float:
    """The project's own program; its table has the first and the last step only."""
    simulate(
        f"ppo(clip_low={CLIP},clip_high={CLIP})",
        env or f"NullBandit-v1(arms={arms},contexts=1)",
        seeds=replicas,
        steps=steps,
        group_size=group_size,
        epochs=UPDATES,
        metrics_every=steps,
        compile=compile,
    )
    return replicas * steps * UPDATES


def programs() -> dict[str, Callable[[], float]]:
    found: dict[str, Callable[[], float] | None] = {PLAIN: lambda: plain_loop(400)}
    baseline = stable_baselines()
    found["Stable-Baselines3 PPO, 1 env"] = None if baseline is None else lambda: baseline(40)
    found["CleanRL-style loop, 16 envs"] = lambda: clean_loop(150)
    found[f"JAX, {REPLICAS} seeds, Gumbel draws"] = jax_program("gumbel")
    found[f"JAX, {REPLICAS} seeds, inverse-CDF draws"] = jax_program("inverse")
    found[ONE] = lambda: simulated(1, 1000)
    # Long enough that building the environment and the final table do not count.
    found[MANY] = lambda: simulated(REPLICAS, 4000)
    if shutil.which("g++") is not None:
        found[COMPILED] = lambda: simulated(REPLICAS, 4000, compile=True)
    return {name: program for name, program in found.items() if program is not None}


def comparison(timings: dict[str, Timing]) -> str:
    ours = [name for name in (MANY, COMPILED) if name in timings]
    rows = [
        [name, f"{timing.median:,.0f}", *(f"{timings[own].over(timing):,.2f}" for own in ours)]
        for name, timing in timings.items()
    ]
    head = [f"{own.removeprefix('simulate, ')} over it" for own in ours]
    return markdown_table(["program", "replica-updates/s", *head], rows)


def limits() -> str:
    """Throughput of the operations the simulation is made of."""
    table, other = torch.randn(REPLICAS, ARMS), torch.empty(REPLICAS, ARMS)
    large, target = torch.randn(1 << 24), torch.empty(1 << 24)

    def repeated(operation: Callable[[], object], count: int, work: float) -> Callable[[], float]:
        def run() -> float:
            for _ in range(count):
                operation()
            return count * work

        return run

    measured = take_turns(
        {
            "exp, table in cache (elements)": repeated(lambda: torch.exp(table, out=other), 500, table.numel()),
            "log-softmax, table in cache (elements)": repeated(
                lambda: torch.log_softmax(table, -1, out=other), 500, table.numel()
            ),
            "copy, main memory (bytes)": repeated(lambda: target.copy_(large), 4, 4 * large.numel()),
        },
        turns=5,
    )
    rows = [[name, f"{timing.median / 1e9:.2f}"] for name, timing in measured.items()]
    return markdown_table(["operation", "10⁹/s"], rows)


def main(turns: int = 5) -> None:
    pin_to_one_core()
    torch.set_num_threads(1)
    print(comparison(take_turns(programs(), turns)), limits(), machine_facts(), sep="\n\n")


if __name__ == "__main__":
    main()
