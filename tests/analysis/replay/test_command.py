from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from testbed import TokenBatch
from testbed.cli import app
from testbed.records import RecordWriter


@pytest.fixture
def record(tmp_path):
    old = torch.full((2, 2), 0.25).log()
    batch = TokenBatch(
        log_probs=old + torch.tensor([[1.5, 0.5], [1.5, 0.5]]).log(),
        old_log_probs=old,
        advantages=torch.tensor([1.0, -1.0]),
        mask=old < 0,
    )
    with RecordWriter(tmp_path / "record", objective="dapo") as writer:
        for update in range(2):
            writer.add(batch, step=1, update=update, prompts=["a", "a"], rewards=[1.0, 0.0])
    return tmp_path / "record"


def test_a_table_on_the_terminal(record):
    result = CliRunner().invoke(app, ["replay", str(record), "ppo", "reinforce"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "8 token-updates of 1 rollouts, trained with dapo"
    assert lines[2].split()[:5] == ["ppo", "0.5", "0.25", "0.25", "0.5"]
    assert "missing" in lines[2]


def test_json_and_a_folder(record, tmp_path):
    result = CliRunner().invoke(app, ["replay", str(record), "ppo", "--json", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    summary = json.loads(result.output)
    assert summary["objectives"]["ppo"]["stopped"] == 0.5
    assert summary["objectives"]["ppo"]["entropy/predicted"] is None
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert len(pd.read_parquet(tmp_path / "out" / "updates.parquet")) == 2


def test_everything_the_record_allows(record):
    result = CliRunner().invoke(app, ["replay", str(record)])
    assert result.exit_code == 0
    assert "not evaluated: " in result.output
    assert "erc (the record has no entropies and old_entropies)" in result.output
