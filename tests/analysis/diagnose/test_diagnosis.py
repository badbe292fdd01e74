from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from analysis.diagnose import LEVELS, diagnose
from testbed.errors import ConfigError


def healthy(rows: int = 60, seed: int = 0) -> list[dict[str, float]]:
    """A TRL run in which nothing is wrong: rewards rise, entropy falls slowly, some tokens are clipped."""
    draw = random.Random(seed)
    return [
        {
            "step": step,
            "loss": draw.gauss(0, 0.01),
            "grad_norm": math.exp(draw.gauss(-1, 0.2)),
            "learning_rate": 1e-6,
            "reward": 0.3 + 0.4 * step / rows + draw.gauss(0, 0.02),
            "reward_std": 0.4,
            "frac_reward_zero_std": min(max(draw.gauss(0.3, 0.05), 0), 1),
            "entropy": 0.6 - 0.15 * step / rows + draw.gauss(0, 0.01),
            "clip_ratio/low_mean": abs(draw.gauss(0.002, 0.0005)),
            "clip_ratio/high_mean": abs(draw.gauss(0.002, 0.0005)),
            "clip_ratio/region_mean": abs(draw.gauss(0.004, 0.0005)),
            "completions/mean_length": draw.gauss(300, 5),
            "completions/clipped_ratio": abs(draw.gauss(0.03, 0.01)),
            "kl": abs(draw.gauss(0.01, 0.001)),
        }
        for step in range(1, rows + 1)
    ]


def test_a_healthy_log_has_no_finding(trainer_state):
    assert diagnose(trainer_state(healthy())).findings == []


def test_a_collapse_is_found_with_its_onset(trainer_state):
    rows = healthy(100)
    for step, row in enumerate(rows):
        # From step 50 on the entropy falls by a tenth a step.
        row["entropy"] *= 0.9 ** max(step - 50, 0)
    (found,) = diagnose(trainer_state(rows)).findings
    assert (found.id, found.level) == ("entropy-collapse", "problem")
    assert found.onset is not None
    assert 40 <= found.onset.step <= 62


def test_json_has_the_fields_that_are_promised(trainer_state):
    rows = healthy()
    for row in rows:
        row["grad_norm"], row["loss"] = math.nan, 0.0
    content = json.loads(diagnose(trainer_state(rows)).to_text())
    assert content["findings"][0]["id"] == "not-a-number"
    assert content["findings"][0]["level"] in LEVELS
    assert {"findings", "log", "configuration", "not_logged", "ambiguous", "unrecognised"} <= set(content)


def test_the_worst_comes_first(trainer_state):
    rows = healthy()
    for row in rows:
        row |= {"completions/clipped_ratio": 0.4, "frac_reward_zero_std": 0.99}
    levels = [LEVELS.index(item.level) for item in diagnose(trainer_state(rows)).findings]
    assert levels == sorted(levels, reverse=True)
    assert len(levels) == 2


def test_an_unknown_file_is_one_sentence(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(ConfigError, match="binary file that no reader knows"):
        diagnose(path)


@pytest.mark.parametrize(("level", "code"), [("warning", 1), ("problem", 0)])
def test_fail_on_sets_the_exit_code(trainer_state, level, code):
    rows = [row | {"completions/clipped_ratio": 0.4} for row in healthy()]
    command = [sys.executable, "-m", "testbed", "diagnose", str(trainer_state(rows)), "--fail-on", level, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert json.loads(done.stdout)["findings"][0]["id"] == "truncation"


@pytest.mark.parametrize(
    ("cut_from", "expected"),
    [
        # Entropy rises from step 15 on: responses that lose their end after that are its consequence, earlier ones not.
        (30, ["entropy-explosion"]),
        (5, ["truncation", "entropy-explosion"]),
    ],
)
def test_a_consequence_does_not_begin_before_its_cause(tmp_path, cut_from, expected):
    steps = np.arange(60)
    entropy = 0.5 + 0.1 * np.maximum(steps - 15, 0) + 0.01 * np.random.default_rng(0).normal(size=60)
    rows = [
        {
            "step": int(step),
            "entropy": float(entropy[step]),
            "completions/clipped_ratio": float(step >= cut_from),
            "completions/mean_length": 9.0,
            "reward": 0.5,
        }
        for step in steps
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = {item.id: item for item in diagnose(path).findings}
    assert [name for name in found if name in {"truncation", "entropy-explosion"}] == expected
    if cut_from == 30:
        assert found["entropy-explosion"].extra["consequences"] == ["truncation"]
