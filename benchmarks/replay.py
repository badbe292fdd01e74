"""Time and peak memory of replaying a record under every objective, and bytes per token, for records of several sizes.

    python benchmarks/replay.py [--millions 1 4 16] [--threads 2] [--objectives dapo …]

The records are synthetic: updates of 256 responses of 20 to 230 tokens over a vocabulary of 64, two updates a rollout,
with everything an objective may read; four rollouts that differ are written again and again. Each size is written and
replayed in a process of its own, whose peak of resident memory is the kernel's; what the same process holds before it
reads, the interpreter and its libraries, is given beside.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measuring import machine_facts, markdown_table

RESPONSES, SHORTEST, LONGEST, VOCABULARY = 256, 20, 230, 64
PROMPTS = [number // 8 for number in range(RESPONSES)]


def write(folder: Path, tokens: int) -> int:
    import torch

    from testbed import TokenBatch
    from testbed.records import RecordWriter

    generator = torch.Generator().manual_seed(0)
    made: list[tuple[TokenBatch, torch.Tensor]] = []
    written = rollout = 0
    with RecordWriter(folder, objective="dapo") as writer:
        while written < tokens:
            rollout += 1
            if len(made) == 8:
                for update in range(2):
                    batch, rewards = made[2 * (rollout % 4) + update]
                    writer.add(batch, step=rollout, update=update, prompts=PROMPTS, rewards=rewards)
                    written += int(batch.mask.sum())
                continue
            old = (2 * torch.randn(RESPONSES, LONGEST, VOCABULARY, generator=generator)).log_softmax(-1)
            for update in range(2):
                new = (old + 0.1 * update * torch.randn(old.shape, generator=generator)).log_softmax(-1)
                numbers = [_statistics(logs) for logs in (new, old)]
                lengths = torch.randint(SHORTEST, LONGEST + 1, (RESPONSES, 1), generator=generator)
                batch = TokenBatch(
                    log_probs=numbers[0][0],
                    old_log_probs=numbers[1][0],
                    advantages=torch.randn(RESPONSES, generator=generator),
                    mask=torch.arange(LONGEST) < lengths,
                    entropies=numbers[0][1],
                    old_entropies=numbers[1][1],
                    kappas=numbers[0][2],
                    old_kappas=numbers[1][2],
                    sampler_log_probs=numbers[1][0] + 0.01,
                    ref_log_probs=numbers[1][0] - 0.1,
                )
                rewards = torch.rand(RESPONSES, generator=generator)
                made.append((batch, rewards))
                writer.add(batch, step=rollout, update=update, prompts=PROMPTS, rewards=rewards)
                written += int(batch.mask.sum())
    return written


def _statistics(logs):
    # The first action stands for the sampled one: all are alike.
    entropies = -(logs.exp() * logs).sum(-1)
    return logs[..., 0], entropies, (logs.exp().square() * (logs + entropies.unsqueeze(-1))).sum(-1)


def measured(folder: Path, threads: int, objectives: list[str]) -> dict[str, float]:
    import torch

    from analysis.replay import replay

    torch.set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began, processor = time.perf_counter(), time.process_time()
    done = replay(folder, objectives or None)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "tokens": done.tokens,
        "objectives": done.table["objective"].nunique(),
        "seconds": seconds,
        "processor": processor,
        "before": before,
        "peak": peak,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.parquet")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--objectives", nargs="*", default=[], help="default: every one")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measured(given.measure, given.threads, given.objectives)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for millions in given.millions:
            record = Path(folder) / f"{millions:g}"
            write(record, int(millions * 1e6))
            command = [sys.executable, __file__, "--measure", str(record), "--threads", str(given.threads)]
            command += ["--objectives", *given.objectives]
            environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found = json.loads(done.stdout)
            rows.append(
                [
                    f"{found['tokens']:,}",
                    f"{found['objectives']}",
                    f"{found['seconds']:.1f}",
                    f"{found['processor']:.1f}",
                    f"{found['peak']:.0f}",
                    f"{found['before']:.0f}",
                    f"{found['bytes'] / found['tokens']:.1f}",
                ]
            )
    print(machine_facts())
    header = ["token-updates", "objectives", "s", "processor s", "peak MiB", "before MiB", "bytes a token-update"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
