"""How often the doctor is right: `python -m analysis.diagnose.planted.measure` writes docs/diagnose.json.

Thresholds were chosen on runs of the seeds 900 to 999, which never judge.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.diagnose.diagnosis import diagnose
from analysis.diagnose.onset import change_point, floor_crossing
from analysis.diagnose.planted.causes import CAUSES, HEALTHY, Planted, healthy
from analysis.diagnose.planted.writers import write
from testbed.progress import LateProgress

__all__ = ["RECORD", "RIVAL", "measure"]

RECORD = Path(__file__).resolve().parents[3] / "docs" / "diagnose.json"

SEED = 5001
"""Master seed of the runs that judge."""

RIVAL = {
    "advantage_collapse": {"no-signal", "reward-constant"},
    "entropy_collapse": {"entropy-collapse"},
    "reward_hacking": {"reward-against-evaluation"},
    "length_pathology": {"truncation", "length-growth"},
    "clip_saturation": {"dual-clip", "clip-range", "weight-ceiling", "clipping-cannot-act"},
    "kl_drift": {"divergence-spike", "mismatch", "mismatch-growing"},
    "gradient_pathology": {"gradient-spike", "not-a-number", "refused-steps"},
    "reward_composition": set(),
    "plateau": {"learning-rate-zero", "reward-constant"},
}
"""rldoctor's detectors, and every cause that one of them could be said to have named; generously."""


def _ours(log: Path, config: Path | None) -> dict[str, Any]:
    found = diagnose(log, config if config is not None else {"none": "given"})
    first = found.findings[0] if found.findings else None
    named = {item.id: item for item in found.findings}
    return {
        "first": None if first is None else first.id,
        "worst": found.worst,
        "ids": list(named),
        "since": {name: item.since for name, item in named.items()},
        "onset": {name: (item.onset.low, item.onset.high) for name, item in named.items() if item.onset is not None},
    }


def _rival(command: str | None, log: Path) -> dict[str, Any] | None:
    if command is None:
        return None
    done = subprocess.run(
        # It wants the folder of event files.
        [command, "diagnose", str(log.parent if "tfevents" in log.name else log), "-f", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    try:
        content = json.loads(done.stdout)
    except ValueError:
        return {"read": False, "named": [], "first": None}
    order = {"CRITICAL": 0, "WARNING": 1, "INFO": 2}
    found = [item for item in content.get("findings", []) if item["severity"] in {"CRITICAL", "WARNING"}]
    found.sort(key=lambda item: order[item["severity"]])
    return {
        "read": True,
        "named": [item["detector"] for item in found],
        "first": found[0]["detector"] if found else None,
        "critical": any(item["severity"] == "CRITICAL" for item in found),
    }


def measure(seeds: int = 5, seed: int = SEED, rival: str | None = None) -> dict[str, Any]:
    """Judge every cause and the healthy runs.

    Args:
        seeds: runs per cause and per healthy setting.
        seed: master seed.
        rival: path of the rldoctor executable to run on the same files; `None`: it is left out.
    """
    record: dict[str, Any] = {"seed": seed, "seeds": seeds, "rival": rival is not None, "causes": [], "healthy": []}
    with tempfile.TemporaryDirectory() as folder, LateProgress("planting", len(CAUSES) + len(HEALTHY)) as progress:
        for cause in CAUSES:
            rows = [
                _judged(Path(folder), item, engine, number, rival)
                for number, item in enumerate(cause.plant(seeds, seed))
                for engine in [cause.engines[number % len(cause.engines)]]
            ]
            record["causes"].append({"name": cause.name, "expected": cause.expected, "runs": rows})
            progress.advance()
        every = (
            "trl",
            "ms-swift",
            "verl",
            "openrlhf",
            "slime",
            "skyrl",
            "prime-rl",
            "nemo-rl",
            "areal",
            "roll",
            "testbed",
        )
        for number, item in enumerate(healthy(seeds, seed)):
            record["healthy"].append(_judged(Path(folder), item, every[number % len(every)], number, rival))
            if number % seeds == 0:
                progress.advance()
    record["change_point"] = _false_alarms()
    record["floor"] = _coverage()
    return record


def _judged(folder: Path, item: Planted, engine: str, number: int, rival: str | None) -> dict[str, Any]:
    place = folder / f"{item.cause}-{number}".replace(" ", "-").replace("'", "")
    log, config = write(place, engine, item.rows, item.settings, number // 3)
    ours, alone = _ours(log, config), _ours(log, None)
    row = {
        "engine": engine,
        "container": log.name.split(".")[0] if "tfevents" in log.name else log.name,
        "rows": len(item.rows["step"]),
        "first": ours["first"],
        "worst": ours["worst"],
        "ids": ours["ids"],
        "first_without_configuration": alone["first"],
        "worst_without_configuration": alone["worst"],
        "rival": _rival(rival, log),
    }
    if item.onset is not None:
        row |= {
            "onset": item.onset,
            "since": ours["since"].get(item.expected),
            "interval": ours["onset"].get(item.expected),
        }
    return row


def _correlated(draw: np.random.Generator, points: int, correlation: float) -> np.ndarray:
    noise = draw.normal(size=points + 50)
    values = np.zeros(points + 50)
    for place in range(1, len(values)):
        values[place] = correlation * values[place - 1] + noise[place]
    return values[50:]


def _false_alarms(repeats: int = 2000) -> list[dict[str, float]]:
    """How often a curve without a change is found to have one."""
    draw = np.random.default_rng(SEED)
    rows = []
    for points in (20, 60, 200):
        for correlation in (0.0, 0.3, 0.6, 0.9):
            found = sum(
                change_point(np.arange(points), _correlated(draw, points, correlation)) is not None
                for _ in range(repeats)
            )
            rows.append({"points": points, "correlation": correlation, "found": found, "repeats": repeats})
    return rows


def _coverage(repeats: int = 500) -> list[dict[str, Any]]:
    """How often the interval of the time to a floor holds the true time."""
    draw = np.random.default_rng(SEED + 1)
    rows = []
    at = np.arange(60.0)
    for shape in ("linear", "exponential"):
        for noise in (0.01, 0.03):
            inside = given = 0
            for _ in range(repeats):
                if shape == "linear":
                    slope = draw.uniform(0.004, 0.01)
                    curve, true = 1 - slope * at, 0.9 / slope - 59
                else:
                    rate = draw.uniform(0.008, 0.03)
                    curve, true = np.exp(-rate * at), np.log(10) / rate - 59
                found = floor_crossing(at, curve + noise * _correlated(draw, 60, 0.3), 0.1)
                if found is not None:
                    given += 1
                    inside += found.low <= true <= found.high
            rows.append({"shape": shape, "noise": noise, "inside": int(inside), "given": given, "repeats": repeats})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rldoctor", help="executable of rldoctor 0.2, to be run on the same files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=RECORD)
    given = parser.parse_args(arguments)
    record = measure(given.seeds, given.seed, given.rldoctor)
    given.out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
