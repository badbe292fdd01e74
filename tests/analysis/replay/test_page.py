"""The page: one file that asks for nothing from outside, says what the tables say, and escapes what came from a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from analysis.replay import replay
from analysis.replay.page import write_page
from analysis.replay.verdicts import judge_record
from testbed import TokenBatch
from testbed.records import RecordWriter
from testbed.simulation import simulate


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("toy")
    simulate("dapo", "ModularSum-v1", seeds=1, steps=6, learning_rate=32.0, record=folder / "record")
    done = replay(folder / "record", ["dapo", "erc", "grpo", "gspo", "reinforce"])
    claims = judge_record(folder / "record", ["dcpo"])
    return write_page(done, claims, folder / "report.html").read_text()


def test_it_is_self_contained(page: str) -> None:
    assert not re.findall(r'(?:src|href)="(?!#|data:image/png;base64,)[^"]*"', page)
    assert "<script" not in page
    assert not re.search(r"url\((?!#)", page)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_it_shows_every_part(page: str) -> None:
    for title in (
        "Tokens that are stopped", "Push that is kept", "Where the tokens lie", "Entropy against entropy ratio",
        "How it moves over the run", "The three thirds", "Predicted and measured", "Whose weights are the largest",
        "What a response weighs", "claims about tokens, on this run",
    ):  # fmt: skip
        assert title in page
    assert page.count("<code>gspo</code>") >= 3
    assert "dcpo/token-clip-ratio" in page
    # One gate for each of dapo (and erc on it), grpo, gspo and reinforce, drawn over the same tokens.
    assert len(re.findall(r'aria-label="Recorded tokens by probability and ratio', page)) == 4


def test_a_record_with_the_least_that_can_be_recorded(tmp_path: Path) -> None:
    old = torch.full((2, 3), -1.0)
    batch = TokenBatch(log_probs=old, old_log_probs=old, advantages=torch.tensor([1.0, -1.0]), mask=old < 0)
    with RecordWriter(tmp_path / "record") as writer:
        writer.add(batch, step=1, update=0, prompts=["<script>alert(1)</script>"] * 2, rewards=[1.0, 0.0])
    page = write_page(replay(tmp_path / "record"), [], tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "Without entropies and kappas in the record there are no classes" in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
