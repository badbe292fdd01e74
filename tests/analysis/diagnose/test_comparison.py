from __future__ import annotations

import json

import numpy as np

from analysis.diagnose.comparison import compare
from analysis.diagnose.log import read_log


def run(tmp_path, name, entropy, config):
    path = tmp_path / name
    rows = [{"step": i, "reward": 0.5, "entropy": float(value)} for i, value in enumerate(entropy)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_log(path, config)


def test_settings_that_differ_and_where_curves_part(tmp_path):
    noise = np.random.default_rng(0).normal(size=(2, 60)) * 0.005
    first = np.full(60, 0.5) + noise[0]
    second = np.where(np.arange(60) < 30, 0.5, 0.2) + noise[1]
    here = run(tmp_path, "a", first, {"epsilon": 0.2, "beta": 0.0})
    there = run(tmp_path, "b", second, {"epsilon": 0.3, "beta": 0.0, "seed": 1})
    found = compare(here, there)
    assert found.settings == [("epsilon", 0.2, 0.3), ("seed", None, 1)]
    parted = {item.name: item.step for item in found.partings}
    assert parted["reward/mean"] is None
    assert 28 <= parted["entropy/mean"] <= 32


def test_runs_that_differ_from_the_start(tmp_path):
    noise = np.random.default_rng(0).normal(size=(2, 60)) * 0.005
    found = compare(run(tmp_path, "a", 0.5 + noise[0], {"a": 1}), run(tmp_path, "b", 0.7 + noise[1], {"a": 1}))
    assert {item.name: item.step for item in found.partings}["entropy/mean"] == 0
    assert json.dumps(found.to_json(), allow_nan=False)
