"""The record that comes with the project: real, small, and read by every part of replay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import analysis.replay
from analysis.replay import replay
from analysis.replay.measures import CLASSES
from analysis.replay.verdicts import judge_record
from analysis.report.formatting import number

RECORD = Path(analysis.replay.__file__).parent / "records" / "smollm2_sums"
TEN = ["grpo", "dapo", "dcpo", "gspo", "erc", "sapo", "ce_gppo", "bapo", "cispo", "clip_v", "reinforce"]


def test_it_is_small_and_says_where_it_is_from():
    assert sum(path.stat().st_size for path in RECORD.iterdir()) < 2 * 2**20
    provenance = json.loads((RECORD / "manifest.json").read_text())["provenance"]
    assert {"model", "task", "training", "result"} <= set(provenance)


def test_it_replays_under_ten_objectives():
    done = replay(RECORD, TEN)
    # The same shares by numpy from the columns themselves: GRPO's clip of 0.2, updates after each rollout's first.
    table = pq.read_table(RECORD / "shard-000-000000.parquet").to_pandas()
    shares = []
    for (_, update), rows in table.groupby(["step", "update"]):
        if update == 0:
            continue
        ratios = np.exp(np.concatenate(rows["log_probs"].tolist()) - np.concatenate(rows["old_log_probs"].tolist()))
        lengths = [len(values) for values in rows["log_probs"]]
        advantages = np.repeat(rows["advantage"].to_numpy(), lengths)
        stopped = ((advantages > 0) & (ratios > 1.2)) | ((advantages < 0) & (ratios < 0.8))
        shares.append(stopped.mean())
    summary = done.summary()
    assert summary.loc["grpo", "stopped"] == pytest.approx(np.mean(shares), rel=1e-6)
    assert done.tokens == sum(len(values) for values in table["log_probs"])
    # docs/replay.md shows this table.
    page = (Path(__file__).parents[3] / "docs" / "replay.md").read_text(encoding="utf-8")
    for name in TEN:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        columns = ("stopped", "stopped/positive_above", "stopped/negative_below", "mass")
        columns += tuple(f"mass/{kind}" for kind in CLASSES)
        for cell, column in zip(cells, columns, strict=False):
            shown = float(cell.removesuffix(" %")) / 100
            assert shown == pytest.approx(summary.loc[name, column], rel=6e-3, abs=1e-9), (name, column)
        assert cells[-1] == number(summary.loc[name, "weight/largest"])
    # Of a model whose entropy falls from 1.5 nats to 0.1 the first-order prediction goes with what followed.
    assert done.correlations()["grpo"] > 0.5
    assert not done.skipped


def test_the_exact_statements_hold_on_it():
    for result in judge_record(RECORD, ["theory", "dcpo/likely-tokens-are-never-clipped"]):
        if result.kind == "exact":
            assert result.verdict == "reproduced", result.reason


def test_advantages_can_be_computed_again():
    # It was trained with standardised groups of eight, split over the four updates of a rollout.
    kept, again = replay(RECORD, ["grpo"]), replay(RECORD, ["grpo"], advantage="group_standardised")
    np.testing.assert_allclose(again.table["loss"], kept.table["loss"], rtol=1e-5, atol=1e-7)
