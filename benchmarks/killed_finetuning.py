"""A fine-tuning run killed with SIGKILL at every moment it writes, each time resumed, and compared with the whole run.

    python benchmarks/killed_finetuning.py [--every 1] [--again]

Needs the `llm` extra and a system that forks. A moment is one that Python reports: a file of the run is about to be
opened for writing, renamed or removed, a folder made. Half of the kills come a few milliseconds later, in the middle of
what a library writes by itself. `--again` kills the resumed run once more before it is let through.
Exit with 1 where a resumed run fails or has other numbers than the whole one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SETTINGS: dict[str, Any] = {
    "model": "qwen2-0.1m",
    "train": {"source": "arithmetic(level=1,count=8)"},
    "test": {"source": "arithmetic(level=1,count=2)"},
    "objective": "dcpo",
    "trainer": {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 4,
        "learning_rate": 0.01,
        "save_steps": 1,
        "save_total_limit": 1,
    },
    "evaluation": {"samples": 1},
    "device": "cpu",
}
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
DELAY = 0.002
"""Seconds between every second moment and its kill."""


def watch(folder: Path, happened: Callable[[int], None]) -> None:
    """Call with 1, 2, … before each change of a file below the folder; for the rest of this process."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not set(str(arguments[1] or "")) & set("wax+"):
            return
        count += 1
        happened(count)

    sys.addaudithook(hook)


def kill_at(moment: int) -> Callable[[int], None]:
    """End this process without a word at a moment."""

    def happened(count: int) -> None:
        if count == moment and moment % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        elif count == moment:
            threading.Timer(DELAY, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

    return happened


def forked(work: Callable[[], None]) -> tuple[int, str]:
    """Run in a child process; its exit status, -9 if it was killed, and what it said."""
    with tempfile.NamedTemporaryFile("w+", suffix=".txt") as said:
        child = os.fork()
        if child == 0:
            status = 1
            with open(said.name, "w") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
                try:
                    work()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                file.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, Path(said.name).read_text()


def digest(folder: Path) -> str:
    """Of the log, the weights and the evaluation, times left out."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    del evaluation["facts"]
    for row in rows:
        row.pop("step_time", None)
    content = json.dumps([rows, evaluation]).encode() + (folder / "model" / "model.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="try every so many moments")
    parser.add_argument("--again", action="store_true", help="kill the resumed run as well")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import trl  # noqa: F401  (once, not in every child)
    import yaml

    import testbed.engines.trl  # noqa: F401
    from testbed.finetune import run_finetune

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        plan, whole, cut = Path(scratch) / "plan.yaml", Path(scratch) / "whole", Path(scratch) / "cut"
        plan.write_text(yaml.safe_dump(SETTINGS))
        counted = Path(scratch) / "moments"

        def run(folder: Path, resume: bool, happened: Callable[[int], None]) -> None:
            watch(folder, happened)
            lines = io.StringIO()
            run_finetune(plan, out=folder, resume=resume, report=lambda line: print(line, file=lines))
            print(lines.getvalue())

        status, said = forked(lambda: run(whole, False, lambda count: counted.write_text(str(count)) and None))
        if status:
            print(said)
            return 1
        expected, moments = digest(whole), int(counted.read_text())
        print(f"{moments} moments", flush=True)
        wrong, passed_over = 0, 0
        for moment in range(1, moments + 1, given.every):
            shutil.rmtree(cut, ignore_errors=True)
            status, said = forked(lambda moment=moment: run(cut, False, kill_at(moment)))  # type: ignore[misc]
            if given.again and (cut / "configuration.yaml").exists():
                status, said = forked(lambda moment=moment: run(cut, True, kill_at(moment // 2 + 1)))  # type: ignore[misc]
            resume = (cut / "configuration.yaml").exists()
            status, said = forked(lambda resume=resume: run(cut, resume, lambda _: None))  # type: ignore[misc]
            passed_over += "passed over" in said or "made again" in said
            if status or digest(cut) != expected:
                wrong += 1
                print(f"moment {moment}: {'other numbers' if not status else said[-1500:]}", flush=True)
        tried = len(range(1, moments + 1, given.every))
        print(
            f"{tried} kills in {time.perf_counter() - started:.0f} s: {tried - wrong} resumed to the same bytes, "
            f"{passed_over} of them said what they passed over, {wrong} did not"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
