"""`testbed finetune` alone and beside two processes that spin on the same two cores.

    python benchmarks/busy_neighbour.py [CONFIGURATION]

Needs the `llm` extra and, for the time alone to mean anything, a machine that is otherwise idle: the load is printed.
The command as it is, which chooses threads and lets them sleep while they wait, stands beside one whose threads spin,
as PyTorch's do by themselves. A run is to take at most three times as long with neighbours as alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORES = 2
LIMIT = 3.0
WAYS = {
    "as it is": {},
    "spinning threads": {"OMP_NUM_THREADS": str(CORES), "OMP_WAIT_POLICY": "ACTIVE"},
}


def seconds(configuration: str, given: dict[str, str]) -> tuple[float, str]:
    """Wall-clock time of a run in a process of its own, and what it said about threads."""
    kept = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    environment = kept | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"} | given
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "testbed", "finetune", configuration, "--out", f"{folder}/run"]
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return taken, next((line for line in done.stdout.splitlines() if line.startswith("threads:")), "")


def main() -> int:
    """Measure both ways, alone and with neighbours."""
    configuration = sys.argv[1] if len(sys.argv) > 1 else "cpu-smoke"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    print(f"load average {os.getloadavg()[0]:.1f} before the start; {CORES} cores")
    alone, beside, failed = {}, {}, False
    for way, given in WAYS.items():
        alone[way] = seconds(configuration, given)
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        for way, given in WAYS.items():
            beside[way] = seconds(configuration, given)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    for way in WAYS:
        ratio = beside[way][0] / alone[way][0]
        failed |= way == "as it is" and ratio > LIMIT
        print(f"{way:<17} alone {alone[way][0]:6.1f} s  with neighbours {beside[way][0]:6.1f} s  ratio {ratio:5.1f}")
        for said in dict.fromkeys((alone[way][1], beside[way][1])):
            print(f"  {said}" if said else "  threads: set from outside")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
